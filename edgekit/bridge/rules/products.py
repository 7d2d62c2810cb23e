"""Conversion rules of Gemm and MatMul."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Shape, Tensor
from edgekit.bridge.layout import Order, Value, plain_order
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.maths import broadcast, collapsed, pair, reduced

# BATCH_MATMUL broadcasts over up to three axes in front of those of the matrices.
_MOST_BATCH_AXES = 3


def gemm(low: Lowering, node: NodeProto) -> None:
    """Convert Gemm: ``alpha * A' @ B' + beta * C``."""
    weight = low.ordered(low.value(node, 1), (0, 1) if attr(node, "transB", 0) else (1, 0))
    columns = (1, 0) if attr(node, "transA", 0) else (0, 1)
    left, weight = _alike(low, low.value(node, 0, mixed=True), weight, columns)
    alpha, beta = attr(node, "alpha", 1.0), attr(node, "beta", 1.0)
    shape = (left.shape[0], weight.shape[0])
    if alpha != 1 and low.is_stored(weight):
        weight, alpha = pair(low, "MUL", weight, alpha), 1.0
    extra: Tensor | None = None
    if low.has(node, 2) and beta != 0:
        extra = low.plain(node, 2)
        extra = extra if beta == 1 else pair(low, "MUL", extra, beta)
    bias = extra if extra is not None and _is_bias(low, extra, weight) and alpha == 1 else None
    if bias is not None:
        bias, extra = low.reshaped(bias, (shape[1],)), None
    made = _connected(low, left, weight, bias)
    made = made if alpha == 1 else pair(low, "MUL", made, alpha)
    low.bind(node, made if extra is None else pair(low, "ADD", made, extra))


def _alike(low: Lowering, left: Value, weight: Tensor, order: Order) -> tuple[Tensor, Tensor]:
    """Return the left operand in a storage order, and weights with columns mixed like its own.

    Args:
        low: receives the operators.
        left: the operand; its summed axis may be anywhere.
        weight: (out, in).
        order: storage order with the summed axis last.
    """
    mixed = left.mixed
    if mixed is None or mixed.axis != order[-1] or not low.is_stored(weight):
        return low.ordered(left, order), weight
    weight = low.mixed_alike(weight, 1, mixed)
    return low.ordered(Value(tensor=left.tensor, order=left.order), order), weight


def _is_bias(low: Lowering, tensor: Tensor, weight: Tensor) -> bool:
    size = weight.shape[0]
    is_row = tensor.shape[-1:] == (size,) and all(n == 1 for n in tensor.shape[:-1])
    return is_row and low.is_stored(tensor) and tensor.dtype == "float32"


def _connected(low: Lowering, left: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``left @ weight.T + bias`` over the last axis of ``left``."""
    shape = (*left.shape[:-1], weight.shape[0])
    if left.dtype != "float32":
        return _exact(low, left, low.transposed(weight, (1, 0)))
    inputs = [left, weight, bias]
    options = {"keep_num_dims": True} if len(shape) != 2 else {}
    return low.emit("FULLY_CONNECTED", inputs, shape, options=options)


def _exact(low: Lowering, left: Tensor, right: Tensor) -> Tensor:
    """Multiply integer matrices by sums of products; no kernel does it without rounding."""
    rank = len(left.shape)
    a = low.reshaped(left, (*left.shape, 1))
    right_shape = (*right.shape[:-2], 1, *right.shape[-2:])
    b = low.reshaped(right, right_shape)
    return reduced(
        low, "SUM", pair(low, "MUL", a, b), [max(rank, len(right.shape)) - 1], keep=False
    )


def matmul(low: Lowering, node: NodeProto) -> None:
    """Convert MatMul, with NumPy's rules for ranks and broadcasting."""
    made, order = product(low, low.value(node, 0, mixed=True), low.value(node, 1))
    low.bind(node, made, order)


def product(low: Lowering, left: Value, right: Value) -> tuple[Tensor, Order]:
    """Multiply two values as NumPy's ``matmul`` does.

    Args:
        low: receives the operators.
        left: of any rank from 1 on.
        right: of any rank from 1 on.

    Returns:
        The product, and its storage order.
    """
    if len(left.order) == 1:
        left = low.unmixed(left)
        row = Value(tensor=low.reshaped(left.tensor, (1, *left.tensor.shape)), order=(0, 1))
        made, order = product(low, row, right)
        return _without(low, made, order, -1 if len(right.order) == 1 else -2)
    if len(right.order) == 1:
        left = low.unmixed(left)
        column = Value(tensor=low.reshaped(right.tensor, (*right.tensor.shape, 1)), order=(0, 1))
        made, order = product(low, left, column)
        return _without(low, made, order, -1)
    if len(right.order) == 2 and low.is_stored(right.tensor):
        return _by_weights(low, left, right)
    made = _batched(low, low.unmixed(left), low.unmixed(right))
    return made, plain_order(len(made.shape))


def _without(low: Lowering, made: Tensor, order: Order, axis: int) -> tuple[Tensor, Order]:
    tensor = low.ordered(Value(tensor=made, order=order), None)
    shape = list(tensor.shape)
    del shape[axis]
    return low.reshaped(tensor, tuple(shape)), plain_order(len(shape))


def _by_weights(low: Lowering, left: Value, right: Value) -> tuple[Tensor, Order]:
    last = len(left.order) - 1
    order = left.order
    if order[-1] != last:
        order = (*(axis for axis in order if axis != last), last)
    tensor, weight = _alike(low, left, low.ordered(right, (1, 0)), order)
    return _connected(low, tensor, weight, None), order


def _batched(low: Lowering, left: Value, right: Value) -> Tensor:
    if left.tensor.dtype != "float32":
        return _exact(low, low.ordered(left, None), low.ordered(right, None))
    a, adj_x = _matrices(low, left)
    b, adj_y = _matrices(low, right, is_right=True)
    batch: Shape = tuple(int(n) for n in np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    shape = (*batch, a.shape[-1 if adj_x else -2], b.shape[-2 if adj_y else -1])
    sides = _batch_axes(a.shape[:-2], b.shape[:-2])
    if sides is None:
        a = broadcast(low, a, (*batch, *a.shape[-2:]))
        b = broadcast(low, b, (*batch, *b.shape[-2:]))
        sides = collapsed(batch, batch)
    a = low.reshaped(a, (*sides[0], *a.shape[-2:]))
    b = low.reshaped(b, (*sides[1], *b.shape[-2:]))
    flat = (*(int(n) for n in np.broadcast_shapes(*sides)), *shape[-2:])
    options = {"adj_x": adj_x, "adj_y": adj_y}
    return low.reshaped(low.emit("BATCH_MATMUL", [a, b], flat, options=options), shape)


def _batch_axes(left: Shape, right: Shape) -> tuple[Shape, Shape] | None:
    """Merge batch axes to at most three; ``None`` if they have to be broadcast first."""
    if len(left) == len(right) <= _MOST_BATCH_AXES:
        return left, right
    a, b = collapsed(left, right)
    return (a, b) if len(a) <= _MOST_BATCH_AXES else None


def _matrices(low: Lowering, value: Value, *, is_right: bool = False) -> tuple[Tensor, bool]:
    """Return a value with its matrices in the last axes, and whether they are stored transposed.

    They are if the value is stored so already. On the right they also are if the entries that lie
    side by side then stay so: rows are moved faster than single entries, and kernels read columns
    of a right operand side by side.
    """
    rank = len(value.order)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    is_free = value.order == swapped or (is_right and value.order[-1] == rank - 2)
    if is_free and min(value.shape[-2:]) > 1:
        return low.ordered(value, swapped), True
    return low.ordered(value, None), False


RULES = {"Gemm": gemm, "MatMul": matmul}
