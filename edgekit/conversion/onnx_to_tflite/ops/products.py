"""Conversion rules of Gemm and MatMul."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order, Value, plain_order
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import (
    broadcast,
    emit_binary,
    merge_axes,
    reduce_axes,
)
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Shape, Tensor

# BATCH_MATMUL broadcasts over up to three axes in front of those of the matrices.
_MOST_BATCH_AXES = 3


def gemm(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Gemm: ``alpha * A' @ B' + beta * C``."""
    weight = builder.to_order(
        builder.value(node, 1), (0, 1) if get_attribute(node, "transB", 0) else (1, 0)
    )
    columns = (1, 0) if get_attribute(node, "transA", 0) else (0, 1)
    left, weight = _match_columns(builder, builder.value(node, 0, mixed=True), weight, columns)
    alpha, beta = get_attribute(node, "alpha", 1.0), get_attribute(node, "beta", 1.0)
    shape = (left.shape[0], weight.shape[0])
    if alpha != 1 and builder.is_stored(weight):
        weight, alpha = emit_binary(builder, "MUL", weight, alpha), 1.0
    extra: Tensor | None = None
    if builder.has(node, 2) and beta != 0:
        extra = builder.plain(node, 2)
        extra = extra if beta == 1 else emit_binary(builder, "MUL", extra, beta)
    bias = extra if extra is not None and _is_bias(builder, extra, weight) and alpha == 1 else None
    if bias is not None:
        bias, extra = builder.reshape(bias, (shape[1],)), None
    product = _emit_fully_connected(builder, left, weight, bias)
    product = product if alpha == 1 else emit_binary(builder, "MUL", product, alpha)
    builder.bind(node, product if extra is None else emit_binary(builder, "ADD", product, extra))


def _match_columns(
    builder: TfliteGraphBuilder, left: Value, weight: Tensor, order: Order
) -> tuple[Tensor, Tensor]:
    """Return the left operand in a storage order, and weights with columns mixed like its own.

    Args:
        builder: receives the operators.
        left: the operand; its summed axis may be anywhere.
        weight: (out, in).
        order: storage order with the summed axis last.
    """
    mixed = left.mixed
    if mixed is None or mixed.axis != order[-1] or not builder.is_stored(weight):
        return builder.to_order(left, order), weight
    weight = builder.mix_alike(weight, 1, mixed)
    return builder.to_order(Value(tensor=left.tensor, order=left.order), order), weight


def _is_bias(builder: TfliteGraphBuilder, tensor: Tensor, weight: Tensor) -> bool:
    size = weight.shape[0]
    is_row = tensor.shape[-1:] == (size,) and all(n == 1 for n in tensor.shape[:-1])
    return is_row and builder.is_stored(tensor) and tensor.dtype == "float32"


def _emit_fully_connected(
    builder: TfliteGraphBuilder, left: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Compute ``left @ weight.T + bias`` over the last axis of ``left``."""
    shape = (*left.shape[:-1], weight.shape[0])
    if left.dtype != "float32":
        return _multiply_integers(builder, left, builder.transpose(weight, (1, 0)))
    inputs = [left, weight, bias]
    options = {"keep_num_dims": True} if len(shape) != 2 else {}
    return builder.emit("FULLY_CONNECTED", inputs, shape, options=options)


def _multiply_integers(builder: TfliteGraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    """Multiply integer matrices by sums of products; no kernel does it without rounding."""
    rank = len(left.shape)
    a = builder.reshape(left, (*left.shape, 1))
    right_shape = (*right.shape[:-2], 1, *right.shape[-2:])
    b = builder.reshape(right, right_shape)
    return reduce_axes(
        builder,
        "SUM",
        emit_binary(builder, "MUL", a, b),
        [max(rank, len(right.shape)) - 1],
        keep=False,
    )


def matmul(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert MatMul, with NumPy's rules for ranks and broadcasting."""
    product, order = multiply(builder, builder.value(node, 0, mixed=True), builder.value(node, 1))
    builder.bind(node, product, order)


def multiply(builder: TfliteGraphBuilder, left: Value, right: Value) -> tuple[Tensor, Order]:
    """Multiply two values as NumPy's ``matmul`` does.

    Args:
        builder: receives the operators.
        left: of any rank from 1 on.
        right: of any rank from 1 on.

    Returns:
        The product, and its storage order.
    """
    if len(left.order) == 1:
        left = builder.unmix(left)
        row = Value(tensor=builder.reshape(left.tensor, (1, *left.tensor.shape)), order=(0, 1))
        product, order = multiply(builder, row, right)
        return _drop_axis(builder, product, order, -1 if len(right.order) == 1 else -2)
    if len(right.order) == 1:
        left = builder.unmix(left)
        column = Value(tensor=builder.reshape(right.tensor, (*right.tensor.shape, 1)), order=(0, 1))
        product, order = multiply(builder, left, column)
        return _drop_axis(builder, product, order, -1)
    if len(right.order) == 2 and builder.is_stored(right.tensor):
        return _multiply_by_weights(builder, left, right)
    product = _multiply_batches(builder, builder.unmix(left), builder.unmix(right))
    return product, plain_order(len(product.shape))


def _drop_axis(
    builder: TfliteGraphBuilder, product: Tensor, order: Order, axis: int
) -> tuple[Tensor, Order]:
    tensor = builder.to_order(Value(tensor=product, order=order), None)
    shape = list(tensor.shape)
    del shape[axis]
    return builder.reshape(tensor, tuple(shape)), plain_order(len(shape))


def _multiply_by_weights(
    builder: TfliteGraphBuilder, left: Value, right: Value
) -> tuple[Tensor, Order]:
    last = len(left.order) - 1
    order = left.order
    if order[-1] != last:
        order = (*(axis for axis in order if axis != last), last)
    tensor, weight = _match_columns(builder, left, builder.to_order(right, (1, 0)), order)
    return _emit_fully_connected(builder, tensor, weight, None), order


def _multiply_batches(builder: TfliteGraphBuilder, left: Value, right: Value) -> Tensor:
    if left.tensor.dtype != "float32":
        return _multiply_integers(
            builder, builder.to_order(left, None), builder.to_order(right, None)
        )
    a, adj_x = _order_matrices(builder, left)
    b, adj_y = _order_matrices(builder, right, is_right=True)
    batch: Shape = tuple(int(n) for n in np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    shape = (*batch, a.shape[-1 if adj_x else -2], b.shape[-2 if adj_y else -1])
    sides = _merge_batch_axes(a.shape[:-2], b.shape[:-2])
    if sides is None:
        a = broadcast(builder, a, (*batch, *a.shape[-2:]))
        b = broadcast(builder, b, (*batch, *b.shape[-2:]))
        sides = merge_axes(batch, batch)
    a = builder.reshape(a, (*sides[0], *a.shape[-2:]))
    b = builder.reshape(b, (*sides[1], *b.shape[-2:]))
    flat = (*(int(n) for n in np.broadcast_shapes(*sides)), *shape[-2:])
    options = {"adj_x": adj_x, "adj_y": adj_y}
    return builder.reshape(builder.emit("BATCH_MATMUL", [a, b], flat, options=options), shape)


def _merge_batch_axes(left: Shape, right: Shape) -> tuple[Shape, Shape] | None:
    """Merge batch axes to at most three; ``None`` if they have to be broadcast first."""
    if len(left) == len(right) <= _MOST_BATCH_AXES:
        return left, right
    a, b = merge_axes(left, right)
    return (a, b) if len(a) <= _MOST_BATCH_AXES else None


def _order_matrices(
    builder: TfliteGraphBuilder, value: Value, *, is_right: bool = False
) -> tuple[Tensor, bool]:
    """Return a value with its matrices in the last axes, and whether they are stored transposed.

    They are if the value is stored so already. On the right they also are if the entries that lie
    side by side then stay so: rows are moved faster than single entries, and kernels read columns
    of a right operand side by side.
    """
    rank = len(value.order)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    is_free = value.order == swapped or (is_right and value.order[-1] == rank - 2)
    if is_free and min(value.shape[-2:]) > 1:
        return builder.to_order(value, swapped), True
    return builder.to_order(value, None), False


RULES = {"Gemm": gemm, "MatMul": matmul}
