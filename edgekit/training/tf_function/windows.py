"""Pooling over windows, and image resizing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from edgekit.tflite.ir import Op


def _pool(op: Op, args: list[Any], *, function: Callable[..., Any]) -> Any:  # noqa: ANN401
    option = op.options
    window = (option["filter_height"], option["filter_width"])
    strides = (option["stride_h"], option["stride_w"])
    return function(args[0], window, strides, option.get("padding", "SAME"))


def _pool_root_mean_square(value: Any, *pool_arguments: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
    return tf.sqrt(tf.nn.avg_pool2d(tf.square(value), *pool_arguments))


def _resize(op: Op, args: list[Any], *, function: Callable[..., Any]) -> Any:  # noqa: ANN401
    return function(
        images=args[0],
        size=args[1],
        align_corners=op.options.get("align_corners", False),
        half_pixel_centers=op.options.get("half_pixel_centers", False),
    )


TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    "AVERAGE_POOL_2D": partial(_pool, function=tf.nn.avg_pool2d),
    "L2_POOL_2D": partial(_pool, function=_pool_root_mean_square),
    "MAX_POOL_2D": partial(_pool, function=tf.nn.max_pool2d),
    "RESIZE_BILINEAR": partial(_resize, function=tf.raw_ops.ResizeBilinear),
    "RESIZE_NEAREST_NEIGHBOR": partial(_resize, function=tf.raw_ops.ResizeNearestNeighbor),
}
