"""Operators that gather, scatter, select or sort entries by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from edgekit.tflite.ir import Op


def _gather(op: Op, args: list[Any]) -> Any:  # noqa: ANN401 - TensorFlow has no types
    axis, batch_dims = (op.options.get(key, 0) for key in ("axis", "batch_dims"))
    return tf.gather(*args, axis=axis, batch_dims=batch_dims)


def _one_hot(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.one_hot(*args, axis=op.options.get("axis", 0))


def _top_k(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    values, indices = tf.math.top_k(*args)
    return [values, tf.cast(indices, op.outputs[1].dtype)]


def _non_max_suppression(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    del op
    boxes, scores, count, overlap, score = args
    indices, valid = tf.raw_ops.NonMaxSuppressionV4(
        boxes=boxes,
        scores=scores,
        max_output_size=count,
        iou_threshold=overlap,
        score_threshold=score,
        pad_to_max_output_size=True,
    )
    return [indices, valid]


def _soft_non_max_suppression(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    del op
    boxes, scores, count, overlap, score, sigma = args
    return list(
        tf.raw_ops.NonMaxSuppressionV5(
            boxes=boxes,
            scores=scores,
            max_output_size=count,
            iou_threshold=overlap,
            score_threshold=score,
            soft_nms_sigma=sigma,
            pad_to_max_output_size=True,
        )
    )


TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    "EMBEDDING_LOOKUP": lambda op, args: tf.gather(args[1], args[0]),
    "GATHER": _gather,
    "GATHER_ND": lambda op, args: tf.gather_nd(*args),
    "NON_MAX_SUPPRESSION_V4": _non_max_suppression,
    "NON_MAX_SUPPRESSION_V5": _soft_non_max_suppression,
    "ONE_HOT": _one_hot,
    "SCATTER_ND": lambda op, args: tf.scatter_nd(*args),
    "SELECT": lambda op, args: tf.where(*args),
    "SELECT_V2": lambda op, args: tf.where(*args),
    "TOPK_V2": _top_k,
    "WHERE": lambda op, args: tf.cast(tf.where(args[0]), op.outputs[0].dtype),
}
