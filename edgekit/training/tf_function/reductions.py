"""Reductions over axes, and normalizations over the last axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from edgekit.tflite.ir import Op


def _reduce(op: Op, args: list[Any], *, function: Callable[..., Any]) -> Any:  # noqa: ANN401
    value, axes = args
    return function(value, axis=axes, keepdims=op.options.get("keep_dims", False))


def _arg_extremum(op: Op, args: list[Any], *, function: Callable[..., Any]) -> Any:  # noqa: ANN401
    value, axis = args
    return function(value, axis=int(axis.ravel()[0]), output_type=op.outputs[0].dtype)


def _cumsum(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    value, axis = args
    exclusive, reverse = (op.options.get(key, False) for key in ("exclusive", "reverse"))
    return tf.cumsum(value, int(axis.ravel()[0]), exclusive=exclusive, reverse=reverse)


def _softmax(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    beta = op.options.get("beta", 0.0)
    return tf.nn.softmax(args[0] if beta == 1.0 else args[0] * beta)


def _local_response_normalization(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.nn.local_response_normalization(
        args[0],
        depth_radius=op.options.get("radius", 0),
        bias=op.options.get("bias", 0.0),
        alpha=op.options.get("alpha", 0.0),
        beta=op.options.get("beta", 0.0),
    )


TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    "ARG_MAX": partial(_arg_extremum, function=tf.argmax),
    "ARG_MIN": partial(_arg_extremum, function=tf.argmin),
    "CUMSUM": _cumsum,
    "L2_NORMALIZATION": lambda op, args: tf.math.l2_normalize(args[0], axis=-1),
    "LOCAL_RESPONSE_NORMALIZATION": _local_response_normalization,
    "LOG_SOFTMAX": lambda op, args: tf.nn.log_softmax(args[0]),
    "MEAN": partial(_reduce, function=tf.reduce_mean),
    "REDUCE_ALL": partial(_reduce, function=tf.reduce_all),
    "REDUCE_ANY": partial(_reduce, function=tf.reduce_any),
    "REDUCE_MAX": partial(_reduce, function=tf.reduce_max),
    "REDUCE_MIN": partial(_reduce, function=tf.reduce_min),
    "REDUCE_PROD": partial(_reduce, function=tf.reduce_prod),
    "SOFTMAX": _softmax,
    "SUM": partial(_reduce, function=tf.reduce_sum),
}
