"""Element-wise operators: unary ones, and binary ones with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.tflite.ir import Op
from edgekit.training.tf_function.quantized import round_straight_through

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "NONE": tf.identity,
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "RELU_0_TO_1": lambda x: tf.clip_by_value(x, 0.0, 1.0),
    "TANH": tf.tanh,
}


def apply_activation(op: Op, value: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
    """Apply the activation that is fused into an operator.

    Args:
        op: the operator.
        value: its output before the activation.

    Raises:
        KeyError: the activation is not among those that TFLite fuses and TensorFlow computes.
    """
    name = op.options.get("fused_activation_function", "NONE")
    return value if name == "NONE" else _ACTIVATIONS[name](value)


def _apply(op: Op, args: list[Any], *, function: Callable[..., Any]) -> Any:  # noqa: ANN401
    del op
    return function(*args)


def _divide(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    if np.issubdtype(np.dtype(op.outputs[0].dtype), np.integer):
        return tf.truncatediv(*args)
    return tf.divide(*args)


def _leaky_relu(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.nn.leaky_relu(args[0], alpha=op.options.get("alpha", 0.0))


def _gelu(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.nn.gelu(args[0], approximate=op.options.get("approximate", False))


def _prelu(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    del op
    value, slope = args
    return tf.nn.relu(value) + slope * tf.minimum(value, 0.0)


def _cast(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.cast(args[0], op.outputs[0].dtype)


def _right_shift(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    del op
    return tf.bitwise.right_shift(*args)


_EACH: dict[str, Callable[..., Any]] = {
    "ABS": tf.abs,
    "ADD": tf.add,
    "ATAN2": tf.atan2,
    "BITWISE_XOR": tf.bitwise.bitwise_xor,
    "CEIL": tf.math.ceil,
    "COS": tf.cos,
    "ELU": tf.nn.elu,
    "EQUAL": tf.equal,
    "EXP": tf.exp,
    "FLOOR": tf.floor,
    "FLOOR_DIV": tf.math.floordiv,
    "FLOOR_MOD": tf.math.floormod,
    "GREATER": tf.greater,
    "GREATER_EQUAL": tf.greater_equal,
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "LESS": tf.less,
    "LESS_EQUAL": tf.less_equal,
    "LOG": tf.math.log,
    "LOGICAL_AND": tf.logical_and,
    "LOGICAL_NOT": tf.logical_not,
    "LOGICAL_OR": tf.logical_or,
    "LOGISTIC": tf.sigmoid,
    "MAXIMUM": tf.maximum,
    "MINIMUM": tf.minimum,
    "MUL": tf.multiply,
    "NEG": tf.negative,
    "NOT_EQUAL": tf.not_equal,
    "POW": tf.pow,
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "RELU_0_TO_1": _ACTIVATIONS["RELU_0_TO_1"],
    "RELU_N1_TO_1": _ACTIVATIONS["RELU_N1_TO_1"],
    "ROUND": round_straight_through,
    "RSQRT": tf.math.rsqrt,
    "SIGN": tf.sign,
    "SIN": tf.sin,
    "SQRT": tf.sqrt,
    "SQUARE": tf.square,
    "SQUARED_DIFFERENCE": tf.math.squared_difference,
    "SUB": tf.subtract,
    "TANH": tf.tanh,
    "ZEROS_LIKE": tf.zeros_like,
}

TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    **{op_type: partial(_apply, function=function) for op_type, function in _EACH.items()},
    "ADD_N": lambda op, args: tf.add_n(args),
    "CAST": _cast,
    "DIV": _divide,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "PRELU": _prelu,
    "RIGHT_SHIFT": _right_shift,
}
