"""Helpers for axes: normalize, remove, insert and align them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import Order, plain_order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_quantization
from edgekit.tflite.ir import Op, Shape, Tensor, constant


def channels_first(rank: int) -> Order:
    """Return the order (batch, channels, space...) for a tensor that is stored channels last."""
    return (0, rank - 1, *range(1, rank - 1))


def normalize_axis(axis: int, rank: int) -> int:
    """Count a possibly negative axis from the front; 0 for a scalar."""
    return axis % rank if rank else 0


def squeeze_axes(
    builder: OnnxGraphBuilder, name: str, order: Order, axes: Sequence[int]
) -> tuple[str, Order]:
    """Remove axes of size 1 from a value.

    Args:
        builder: the ONNX graph under construction.
        name: of the value.
        order: of its axes.
        axes: to remove, as the TFLite tensor numbers them.

    Returns:
        The name of the new value, and the order of its axes.
    """
    if not axes:
        return name, order
    positions = sorted(order.index(axis) for axis in axes)
    remaining = drop_axes(order, axes)
    return builder.node("Squeeze", [name, builder.ints(*positions)]), remaining


def drop_axes(order: Order, axes: Sequence[int]) -> Order:
    """Remove axes from an order and renumber the others."""
    return tuple(a - sum(gone < a for gone in axes) for a in order if a not in axes)


def unsqueeze_axes(
    builder: OnnxGraphBuilder, name: str, order: Order, axes: Sequence[int]
) -> tuple[str, Order]:
    """Insert axes of size 1 into a value.

    Args:
        builder: the ONNX graph under construction.
        name: of the value.
        order: of its axes.
        axes: to insert, as the resulting TFLite tensor numbers them.

    Returns:
        The name of the new value, and the order of its axes.
    """
    if not axes:
        return name, order
    old = [a for a in range(len(order) + len(axes)) if a not in axes]
    result = [old[a] for a in order]
    for axis in sorted(axes, reverse=True):
        result.insert(result.index(axis + 1) if axis + 1 in result else len(result), axis)
    positions = sorted(result.index(axis) for axis in axes)
    return builder.node("Unsqueeze", [name, builder.ints(*positions)]), tuple(result)


def align_inputs(
    builder: OnnxGraphBuilder, op: Op, positions: Sequence[int]
) -> tuple[list[str], Order]:
    """Read inputs in one order of axes, with shapes that broadcast.

    The order is that of the largest input of full rank, computed inputs before constants; the
    others are transposed to it.

    Args:
        builder: the ONNX graph under construction.
        op: the operator.
        positions: of the inputs.

    Returns:
        The names of the values, and their order of axes.
    """
    tensors = [builder.tensor(op, p) for p in positions]
    rank = max(len(t.shape) for t in tensors)
    full = [p for p, t in zip(positions, tensors, strict=True) if len(t.shape) == rank]
    leader = max(full, key=lambda p: _importance(builder.tensor(op, p)))
    order = builder.order(op, leader)
    return [_align_input(builder, t, order) for t in tensors], order


def _importance(tensor: Tensor) -> tuple[bool, int]:
    return not tensor.is_constant, int(np.prod(np.abs(tensor.shape)))


def _align_input(builder: OnnxGraphBuilder, tensor: Tensor, order: Order) -> str:
    missing = len(order) - len(tensor.shape)
    if order == plain_order(len(order)) or not tensor.shape:
        return builder.read(tensor)
    if not missing:
        return builder.read(tensor, order)
    q = get_quantization(tensor)
    if tensor.data is not None and (q is None or len(q.scales) == 1):
        shape: Shape = (1,) * missing + tensor.shape
        reshaped = constant(tensor.name, tensor.data.reshape(shape), quantization=q)
        return builder.read(reshaped, order)
    name = builder.node("Unsqueeze", [builder.read(tensor), builder.ints(*range(missing))])
    return builder.transpose(name, order)
