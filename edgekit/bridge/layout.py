"""In which order a value's axes are stored, so that a transpose costs nothing until it must."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.bridge.graph import Shape, Tensor

Order = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """An axis that was merged of several, and is stored with those in another order.

    A flattened image that is kept channels last has mixed columns: a dense layer reads it as it
    is when the rows of its weight are mixed in the same way; others have it put right first.

    Args:
        axis: the merged one, as ONNX numbers it.
        sizes: of its parts, as ONNX has them.
        order: stored part ``i`` is ONNX's part ``order[i]``.
    """

    axis: int
    sizes: Shape
    order: Order


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """An ONNX value: a tensor whose storage axis ``i`` holds the value's axis ``order[i]``.

    TFLite wants images with channels last where ONNX has them first; a value keeps the order that
    its maker gave it, and is transposed only where a reader cannot do with it.

    Args:
        mixed: an axis whose entries are stored in another order than ONNX has them.
    """

    tensor: Tensor
    order: Order
    mixed: Mixed | None = None

    @property
    def shape(self) -> Shape:
        """Sizes as ONNX says them."""
        return logical(self.tensor.shape, self.order)

    @property
    def is_plain(self) -> bool:
        """Whether axes are stored as ONNX has them."""
        return self.order == plain_order(len(self.order))

    def axis(self, of: int) -> int:
        """Where an ONNX axis, which may be negative, is stored."""
        return self.order.index(of % len(self.order))


def split_apart(value: Value) -> tuple[Shape, Order]:
    """Storage shape and order of a mixed value when its mixed axis is many axes again."""
    mixed = value.mixed
    if mixed is None:
        return value.tensor.shape, value.order
    more = len(mixed.sizes) - 1
    shape: list[int] = []
    order: list[int] = []
    for size, axis in zip(value.tensor.shape, value.order, strict=True):
        if axis == mixed.axis:
            shape += [mixed.sizes[part] for part in mixed.order]
            order += [axis + part for part in mixed.order]
        else:
            shape.append(size)
            order.append(axis + more if axis > mixed.axis else axis)
    return tuple(shape), tuple(order)


def plain_order(rank: int) -> Order:
    """Axes as ONNX has them."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Batch, then space, then channels: (0, 2, 3, 1) for images."""
    return (0, *range(2, rank), 1)


def stored(shape: Shape, order: Order) -> Shape:
    """Sizes in storage order, of sizes as ONNX says them."""
    return tuple(shape[axis] for axis in order)


def logical(shape: Shape, order: Order) -> Shape:
    """Sizes as ONNX says them, of sizes in storage order."""
    sizes = dict(zip(order, shape, strict=True))
    return tuple(sizes[axis] for axis in range(len(order)))


def permutation(of: Order, to: Order) -> Order:
    """The ``perm`` of the TRANSPOSE that brings storage order ``of`` to ``to``."""
    return tuple(of.index(axis) for axis in to)


def fewest_axes(shape: Shape, perm: Order) -> tuple[Shape, Order]:
    """The same move with axes as one that stay side by side, and without axes of size 1."""
    places = [axis for axis in range(len(shape)) if shape[axis] != 1]
    groups: list[list[int]] = []
    for axis in perm:
        if shape[axis] == 1:
            continue
        place = places.index(axis)
        if groups and groups[-1][-1] == place - 1:
            groups[-1].append(place)
        else:
            groups.append([place])
    stored_groups = sorted(groups)
    sizes = tuple(math.prod(shape[places[p]] for p in group) for group in stored_groups)
    return sizes, tuple(stored_groups.index(group) for group in groups)


def moves_nothing(shape: Shape, perm: Order) -> bool:
    """Whether a transpose only moves axes of size 1, so that a RESHAPE does the same."""
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)
