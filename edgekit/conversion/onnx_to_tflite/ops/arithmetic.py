"""Arithmetic on tensors of one storage order, in types and ranks that TFLite's kernels support."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.tflite.ir import Shape, Tensor

# Most kernels broadcast over at most four axes.
_MOST_AXES = 4
_COMPARISONS = ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")
_ON_INT64 = {"ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "FLOOR_MOD", "NEG", *_COMPARISONS}
_ON_BOOL = {"EQUAL", "NOT_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT"}
# Kernels that broadcast only between shapes of the same rank.
_OF_ONE_RANK = {"BITWISE_XOR", "RIGHT_SHIFT"}
_REDUCES_ON_INT64 = {"SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"}


def kernel_type(op_type: str, dtype: str) -> str:
    """Return the type in which an operator computes values of a type.

    Small integers are computed in 32 bits and cast back, which wraps as ONNX does. 64-bit integers
    are computed in 64 bits where there is a kernel for them, else in 32 bits too.

    Args:
        op_type: TFLite operator type.
        dtype: of the values.
    """
    if dtype in ("float32", "complex64"):
        return dtype
    if dtype == "bool":
        return "bool" if op_type in _ON_BOOL else "int32"
    if dtype in ("int64", "uint32", "uint64"):
        return "int64" if op_type in _ON_INT64 or op_type in _REDUCES_ON_INT64 else "int32"
    return "int32"


def emit_binary(
    builder: TfliteGraphBuilder,
    op_type: str,
    left: Tensor | float,
    right: Tensor | float,
    *,
    dtype: str | None = None,
) -> Tensor:
    """Apply a binary operator to two tensors that broadcast, or to a tensor and a number.

    Args:
        builder: receives the operators.
        op_type: TFLite operator type.
        left: the first operand.
        right: the second operand.
        dtype: of the result, if it differs from that of the operands.

    Raises:
        TypeError: both operands are numbers.
    """
    reference = left if isinstance(left, Tensor) else right
    if not isinstance(reference, Tensor):
        raise TypeError("two numbers need no operator")
    computed = kernel_type(op_type, reference.dtype)
    a, b = (_to_operand(builder, each, computed) for each in (left, right))
    if op_type in _OF_ONE_RANK:
        rank = max(len(a.shape), len(b.shape))
        a, b = (builder.reshape(t, (1,) * (rank - len(t.shape)) + t.shape) for t in (a, b))
    result = _emit_broadcasting(builder, op_type, a, b, dtype or computed)
    return result if dtype else builder.cast(result, reference.dtype)


def _to_operand(builder: TfliteGraphBuilder, operand: Tensor | float, computed: str) -> Tensor:
    if isinstance(operand, Tensor):
        return builder.cast(operand, computed)
    return builder.store(np.asarray(operand, computed))


def _emit_broadcasting(
    builder: TfliteGraphBuilder, op_type: str, left: Tensor, right: Tensor, dtype: str
) -> Tensor:
    shape: Shape = tuple(int(n) for n in np.broadcast_shapes(left.shape, right.shape))
    if len(shape) <= _MOST_AXES:
        return builder.emit(op_type, [left, right], shape, dtype=dtype)
    shapes = merge_axes(left.shape, right.shape)
    if len(shapes[0]) > _MOST_AXES:
        left, right = broadcast(builder, left, shape), broadcast(builder, right, shape)
        shapes = merge_axes(left.shape, right.shape)
    a, b = builder.reshape(left, shapes[0]), builder.reshape(right, shapes[1])
    flat = tuple(int(n) for n in np.broadcast_shapes(*shapes))
    return builder.reshape(builder.emit(op_type, [a, b], flat, dtype=dtype), shape)


def merge_axes(left: Shape, right: Shape) -> tuple[Shape, Shape]:
    """Merge neighboring axes of two shapes as far as they still broadcast to the same entries."""
    rank = max(len(left), len(right))
    a, b = ((1,) * (rank - len(s)) + s for s in (left, right))
    merged: list[tuple[int, int]] = []
    patterns: list[tuple[bool, bool]] = []
    for x, y in zip(a, b, strict=True):
        if x == y == 1:
            continue
        pattern = (x == 1, y == 1)
        if patterns and patterns[-1] == pattern:
            merged[-1] = (merged[-1][0] * x, merged[-1][1] * y)
        else:
            merged.append((x, y))
            patterns.append(pattern)
    return tuple(x for x, _ in merged) or (1,), tuple(y for _, y in merged) or (1,)


def broadcast(builder: TfliteGraphBuilder, tensor: Tensor, shape: Shape) -> Tensor:
    """Broadcast a tensor to a shape."""
    if tensor.shape == shape:
        return tensor
    return builder.emit("BROADCAST_TO", [tensor, builder.int32(shape)], shape, dtype=tensor.dtype)


def emit_unary(
    builder: TfliteGraphBuilder,
    op_type: str,
    tensor: Tensor,
    *,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Apply a unary operator to each entry of a tensor."""
    computed = kernel_type(op_type, tensor.dtype)
    result = builder.emit(
        op_type, [builder.cast(tensor, computed)], tensor.shape, dtype=computed, options=options
    )
    return builder.cast(result, tensor.dtype)


def reduce_axes(
    builder: TfliteGraphBuilder,
    op_type: str,
    tensor: Tensor,
    axes: Sequence[int],
    *,
    keep: bool = True,
) -> Tensor:
    """Reduce a tensor over storage axes; return it unchanged if there are none.

    Args:
        builder: receives the operators.
        op_type: TFLite operator type.
        tensor: to be reduced.
        axes: as they are stored.
        keep: keep the reduced axes with size 1.
    """
    if not axes:
        return tensor
    computed = (
        tensor.dtype if op_type.startswith("REDUCE_A") else kernel_type(op_type, tensor.dtype)
    )
    inside = set(axes)
    shape = tuple(
        1 if axis in inside else size
        for axis, size in enumerate(tensor.shape)
        if keep or axis not in inside
    )
    inputs = [builder.cast(tensor, computed), builder.int32(sorted(inside))]
    result = builder.emit(op_type, inputs, shape, dtype=computed, options={"keep_dims": keep})
    return builder.cast(result, tensor.dtype)


def clamp(
    builder: TfliteGraphBuilder, tensor: Tensor, least: float | None, most: float | None
) -> Tensor:
    """Clamp a tensor to bounds by MAXIMUM and MINIMUM; ``None`` = no bound."""
    if least is not None:
        tensor = emit_binary(builder, "MAXIMUM", tensor, least)
    return tensor if most is None else emit_binary(builder, "MINIMUM", tensor, most)


def evaluate_polynomial(
    builder: TfliteGraphBuilder, tensor: Tensor, coefficients: Sequence[float]
) -> Tensor:
    """Evaluate a polynomial at each entry by Horner's scheme.

    Args:
        builder: receives the operators.
        tensor: float32.
        coefficients: in order of falling powers, at least two.
    """
    result = emit_binary(builder, "MUL", tensor, coefficients[0])
    for coefficient in coefficients[1:-1]:
        result = emit_binary(
            builder, "MUL", emit_binary(builder, "ADD", result, coefficient), tensor
        )
    return emit_binary(builder, "ADD", result, coefficients[-1])


def select(
    builder: TfliteGraphBuilder,
    condition: Tensor,
    if_true: Tensor | float,
    if_false: Tensor | float,
) -> Tensor:
    """Select entries of one tensor where a condition holds, of another elsewhere.

    Args:
        builder: receives the operators.
        condition: bool.
        if_true: a number, or a tensor of the condition's shape.
        if_false: likewise.
    """
    sides = [t if isinstance(t, Tensor) else builder.float32(t) for t in (if_true, if_false)]
    flat = (math.prod(condition.shape),)
    shape = condition.shape if len(condition.shape) <= _MOST_AXES else flat
    inputs = [builder.reshape(t, shape) if t.shape else t for t in (condition, *sides)]
    return builder.reshape(builder.emit("SELECT_V2", inputs, shape), condition.shape)
