"""Convolutions built from TensorFlow operations that have gradients on every processor.

Without oneDNN, TensorFlow has no gradients of grouped or dilated convolutions, and no depthwise
convolution with unequal strides. Therefore groups are split, dilated kernels get explicit zeros
between their taps, and unequal strides are applied by slicing the result for stride 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgekit.tflite.ir import Op


def _conv(op: Op, args: list[Any]) -> Any:  # noqa: ANN401 - TensorFlow has no types
    image, weight, bias = (*args, None)[:3]
    strides, padding = _read_strides(op), op.options.get("padding", "SAME")
    kernel = _insert_zeros(tf.transpose(weight, (1, 2, 3, 0)), _read_dilations(op))
    groups = image.shape[-1] // weight.shape[-1]
    if groups == 1:
        output = tf.nn.conv2d(image, kernel, strides, padding)
    else:
        parts = zip(tf.split(image, groups, -1), tf.split(kernel, groups, -1), strict=True)
        output = tf.concat([tf.nn.conv2d(*part, strides, padding) for part in parts], -1)
    return _add_bias(output, bias)


def _depthwise_conv(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    image, weight, bias = (*args, None)[:3]
    _, height, width, count = weight.shape
    channels = image.shape[-1]
    kernel = tf.reshape(weight, (height, width, channels, count // channels))
    kernel = _insert_zeros(kernel, _read_dilations(op))
    strides, padding = _read_strides(op), op.options.get("padding", "SAME")
    if strides[0] == strides[1]:
        output = tf.nn.depthwise_conv2d(image, kernel, (1, *strides, 1), padding)
    else:
        image = _pad_same(image, kernel.shape, strides) if padding == "SAME" else image
        unstrided = tf.nn.depthwise_conv2d(image, kernel, (1, 1, 1, 1), "VALID")
        output = unstrided[:, :: strides[0], :: strides[1]]
    return _add_bias(output, bias)


def _transpose_conv(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    shape, weight, image, bias = (*args, None)[:4]
    kernel = tf.transpose(weight, (1, 2, 0, 3))
    padding = op.options.get("padding", "SAME")
    return _add_bias(tf.nn.conv2d_transpose(image, kernel, shape, _read_strides(op), padding), bias)


def _conv_3d(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    volume, weight, bias = (*args, None)[:3]
    kernel = _insert_zeros(weight, (op.options.get("dilation_d_factor", 1), *_read_dilations(op)))
    padding = op.options.get("padding", "SAME")
    return _add_bias(tf.nn.conv3d(volume, kernel, _read_strides_3d(op), padding), bias)


def _transpose_conv_3d(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    shape, weight, volume, bias = (*args, None)[:4]
    padding = op.options.get("padding", "SAME")
    return _add_bias(
        tf.nn.conv3d_transpose(volume, weight, shape, _read_strides_3d(op), padding), bias
    )


def _add_bias(output: Any, bias: Any) -> Any:  # noqa: ANN401
    return output if bias is None else output + bias


def _read_strides(op: Op) -> tuple[int, int]:
    return op.options["stride_h"], op.options["stride_w"]


def _read_strides_3d(op: Op) -> tuple[int, ...]:
    return 1, op.options["stride_d"], *_read_strides(op), 1


def _read_dilations(op: Op) -> tuple[int, int]:
    return op.options.get("dilation_h_factor", 1), op.options.get("dilation_w_factor", 1)


def _insert_zeros(kernel: Any, dilations: Sequence[int]) -> Any:  # noqa: ANN401
    """Insert ``dilation - 1`` zeros between the taps of a kernel along its first axes."""
    for axis, dilation in enumerate(dilations):
        sizes = list(kernel.shape)
        if dilation == 1 or sizes[axis] == 1:
            continue
        expanded = tf.expand_dims(kernel, axis + 1)
        pads = [[0, 0]] * (axis + 1) + [[0, dilation - 1]] + [[0, 0]] * (len(sizes) - axis - 1)
        taps = sizes[axis] * dilation
        kernel = tf.reshape(tf.pad(expanded, pads), [*sizes[:axis], taps, *sizes[axis + 1 :]])
        kernel = tf.gather(kernel, range(taps - dilation + 1), axis=axis)
    return kernel


def _pad_same(image: Any, kernel: Sequence[int], strides: Sequence[int]) -> Any:  # noqa: ANN401
    """Pad an image with zeros as SAME padding does; an odd total adds one more at the end."""
    pads = [[0, 0]]
    for size, taps, stride in zip(image.shape[1:3], kernel[:2], strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        pads.append([total // 2, total - total // 2])
    return tf.pad(image, [*pads, [0, 0]])


TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    "CONV_2D": _conv,
    "CONV_3D": _conv_3d,
    "CONV_3D_TRANSPOSE": _transpose_conv_3d,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "TRANSPOSE_CONV": _transpose_conv,
}
