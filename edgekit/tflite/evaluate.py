"""Evaluation of TFLite operators on constants with numpy, for constant folding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgekit.tflite.ir import Array, Op

Compute = Callable[[Op, Sequence[Array]], Array]


def evaluate_op(op: Op, arrays: Sequence[Array]) -> Array | None:
    """Compute the output of an operator; ``None`` for operators that are not supported here.

    Args:
        op: Operator with one output, whose type and shape the result gets.
        arrays: Values of its inputs, in order.
    """
    compute = _COMPUTED.get(op.op_type)
    if compute is None or len(op.outputs) != 1 or op.options.get("batch_dims"):
        return None
    with np.errstate(all="ignore"):
        result = np.asarray(compute(op, arrays))
    return _apply_activation(op, result).astype(op.outputs[0].dtype, copy=False)


def activation_bounds(name: str) -> tuple[float, float]:
    """Return the smallest and the largest value that a fused activation lets through.

    Raises:
        KeyError: The activation is no clamp.
    """
    return {
        "NONE": (-np.inf, np.inf),
        "RELU": (0.0, np.inf),
        "RELU6": (0.0, 6.0),
        "RELU_N1_TO_1": (-1.0, 1.0),
    }[name]


def _apply_activation(op: Op, result: Array) -> Array:
    name = op.options.get("fused_activation_function", "NONE")
    return result if name == "NONE" else np.clip(result, *activation_bounds(name))


def _apply_function(function: Callable[..., Any], op: Op, arrays: Sequence[Array]) -> Array:
    del op
    return np.asarray(function(*arrays))


def _reshape(op: Op, arrays: Sequence[Array]) -> Array:
    shape = arrays[1] if len(arrays) > 1 else op.options["new_shape"]
    return arrays[0].reshape([int(n) for n in shape])


def _reshape_to_output(op: Op, arrays: Sequence[Array]) -> Array:
    return arrays[0].reshape(op.outputs[0].shape)


def _transpose(op: Op, arrays: Sequence[Array]) -> Array:
    del op
    return np.transpose(arrays[0], [int(n) for n in arrays[1]])


def _cast(op: Op, arrays: Sequence[Array]) -> Array:
    return arrays[0].astype(op.outputs[0].dtype)


def _slice(op: Op, arrays: Sequence[Array]) -> Array:
    del op
    parts = zip(arrays[1], arrays[2], strict=True)
    return arrays[0][tuple(slice(b, None if n < 0 else b + n) for b, n in parts)]


def _strided_slice(op: Op, arrays: Sequence[Array]) -> Array:
    array, begins, ends, strides = arrays
    masks = {key: op.options.get(f"{key}_mask", 0) for key in ("begin", "end", "shrink_axis")}
    parts: list[slice | int] = []
    for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        if masks["shrink_axis"] >> axis & 1:
            parts.append(int(begin))
            continue
        first = None if masks["begin"] >> axis & 1 else int(begin)
        last = None if masks["end"] >> axis & 1 else int(end)
        parts.append(slice(first, last, int(stride)))
    return np.asarray(array[tuple(parts)])


def _concatenate(op: Op, arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays, axis=op.options.get("axis", 0))


def _pack(op: Op, arrays: Sequence[Array]) -> Array:
    return np.stack(arrays, axis=op.options.get("axis", 0))


def _gather(op: Op, arrays: Sequence[Array]) -> Array:
    return np.take(arrays[0], arrays[1], axis=op.options.get("axis", 0))


def _pad(op: Op, arrays: Sequence[Array]) -> Array:
    fill = arrays[2].item() if len(arrays) > 2 else 0
    return np.pad(arrays[0], arrays[1].tolist(), constant_values=fill)


def _tile(op: Op, arrays: Sequence[Array]) -> Array:
    return np.tile(arrays[0], arrays[1].tolist())


def _broadcast(op: Op, arrays: Sequence[Array]) -> Array:
    return np.broadcast_to(arrays[0], op.outputs[0].shape)


def _reverse(op: Op, arrays: Sequence[Array]) -> Array:
    return np.flip(arrays[0], tuple(arrays[1].ravel().tolist()))


def _reduce(function: Callable[..., Any], op: Op, arrays: Sequence[Array]) -> Array:
    axes = tuple(arrays[1].ravel().tolist())
    result = function(arrays[0], axis=axes, keepdims=op.options.get("keep_dims", False))
    return np.asarray(result)


def _divide(left: Array, right: Array) -> Array:
    if np.issubdtype(left.dtype, np.integer):
        quotient = np.abs(left) // np.maximum(np.abs(right), 1)
        return np.asarray(quotient * np.sign(left) * np.sign(right))
    return np.asarray(left / right)


def _rsqrt(array: Array) -> Array:
    return np.asarray(1 / np.sqrt(array))


def _logistic(array: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-array.astype(np.float64))))


def _relu(array: Array) -> Array:
    return np.maximum(array, 0)


# Operators that only move values, so that they can run on quantized integers directly.
MOVING = frozenset(
    ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "SLICE", "STRIDED_SLICE", "REVERSE_V2")
)

_COMPUTED: dict[str, Compute] = {
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
    "EXPAND_DIMS": _reshape_to_output,
    "SQUEEZE": _reshape_to_output,
    "CAST": _cast,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "REVERSE_V2": _reverse,
    "CONCATENATION": _concatenate,
    "PACK": _pack,
    "GATHER": _gather,
    "PAD": _pad,
    "PADV2": _pad,
    "TILE": _tile,
    "BROADCAST_TO": _broadcast,
    "FILL": lambda op, arrays: np.broadcast_to(arrays[1], op.outputs[0].shape),
    "SELECT_V2": partial(_apply_function, np.where),
    "SUM": partial(_reduce, np.sum),
    "MEAN": partial(_reduce, np.mean),
    "REDUCE_MAX": partial(_reduce, np.max),
    "REDUCE_MIN": partial(_reduce, np.min),
    "ADD": partial(_apply_function, np.add),
    "SUB": partial(_apply_function, np.subtract),
    "MUL": partial(_apply_function, np.multiply),
    "DIV": partial(_apply_function, _divide),
    "FLOOR_DIV": partial(_apply_function, np.floor_divide),
    "MAXIMUM": partial(_apply_function, np.maximum),
    "MINIMUM": partial(_apply_function, np.minimum),
    "POW": partial(_apply_function, np.power),
    "SQUARED_DIFFERENCE": partial(_apply_function, lambda a, b: np.square(a - b)),
    "NEG": partial(_apply_function, np.negative),
    "ABS": partial(_apply_function, np.abs),
    "SQUARE": partial(_apply_function, np.square),
    "SQRT": partial(_apply_function, np.sqrt),
    "RSQRT": partial(_apply_function, _rsqrt),
    "EXP": partial(_apply_function, np.exp),
    "LOG": partial(_apply_function, np.log),
    "SIN": partial(_apply_function, np.sin),
    "COS": partial(_apply_function, np.cos),
    "TANH": partial(_apply_function, np.tanh),
    "FLOOR": partial(_apply_function, np.floor),
    "LOGISTIC": partial(_apply_function, _logistic),
    "RELU": partial(_apply_function, _relu),
    "EQUAL": partial(_apply_function, np.equal),
    "NOT_EQUAL": partial(_apply_function, np.not_equal),
    "LESS": partial(_apply_function, np.less),
    "GREATER": partial(_apply_function, np.greater),
    "LOGICAL_NOT": partial(_apply_function, np.logical_not),
    "LOGICAL_AND": partial(_apply_function, np.logical_and),
    "LOGICAL_OR": partial(_apply_function, np.logical_or),
}
