"""Axes put in, taken out, and found again in the order in which a value is held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.bridge.graph import Op, Shape, Tensor, constant
from edgekit.bridge.layout import Order, plain_order
from edgekit.bridge.lifted import quantized
from edgekit.bridge.lifting import Lifting


def channels_first(rank: int) -> Order:
    """Batch, then channels, then space: what ONNX wants of a tensor with channels last."""
    return (0, rank - 1, *range(1, rank - 1))


def positive(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis % rank if rank else 0


def squeezed(lifting: Lifting, name: str, order: Order, axes: Sequence[int]) -> tuple[str, Order]:
    """A value without some axes of size 1, and the order of those that are left.

    Args:
        lifting: the graph in the making.
        name: the value.
        order: of its axes.
        axes: of the tensor.
    """
    if not axes:
        return name, order
    where = sorted(order.index(axis) for axis in axes)
    left = without(order, axes)
    return lifting.node("Squeeze", [name, lifting.ints(*where)]), left


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order of the axes that are left when some are gone."""
    return tuple(a - sum(gone < a for gone in axes) for a in order if a not in axes)


def unsqueezed(lifting: Lifting, name: str, order: Order, axes: Sequence[int]) -> tuple[str, Order]:
    """A value with axes of size 1 put in, and its new order.

    Args:
        lifting: the graph in the making.
        name: the value.
        order: of its axes.
        axes: of the tensor that is made.
    """
    if not axes:
        return name, order
    old = [a for a in range(len(order) + len(axes)) if a not in axes]
    made = [old[a] for a in order]
    for axis in sorted(axes, reverse=True):
        made.insert(made.index(axis + 1) if axis + 1 in made else len(made), axis)
    where = sorted(made.index(axis) for axis in axes)
    return lifting.node("Unsqueeze", [name, lifting.ints(*where)]), tuple(made)


def together(lifting: Lifting, op: Op, positions: Sequence[int]) -> tuple[list[str], Order]:
    """Inputs in one order of axes and of shapes that broadcast, and that order.

    The order is that of the largest computed input of full rank; the others are turned.
    """
    tensors = [lifting.tensor(op, p) for p in positions]
    rank = max(len(t.shape) for t in tensors)
    full = [p for p, t in zip(positions, tensors, strict=True) if len(t.shape) == rank]
    leader = max(full, key=lambda p: _weight(lifting.tensor(op, p)))
    order = lifting.order(op, leader)
    return [_aligned(lifting, t, order) for t in tensors], order


def _weight(tensor: Tensor) -> tuple[bool, int]:
    return not tensor.is_constant, int(np.prod(np.abs(tensor.shape)))


def _aligned(lifting: Lifting, tensor: Tensor, order: Order) -> str:
    missing = len(order) - len(tensor.shape)
    if order == plain_order(len(order)) or not tensor.shape:
        return lifting.read(tensor)
    if not missing:
        return lifting.read(tensor, order)
    q = quantized(tensor)
    if tensor.data is not None and (q is None or len(q.scales) == 1):
        shape: Shape = (1,) * missing + tensor.shape
        wide = constant(tensor.name, tensor.data.reshape(shape), quantization=q)
        return lifting.read(wide, order)
    name = lifting.node("Unsqueeze", [lifting.read(tensor), lifting.ints(*range(missing))])
    return lifting.transposed(name, order)
