"""Reshaping of values, in their storage order where possible."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.conversion.onnx_to_tflite.layout import (
    MixedAxis,
    Order,
    Value,
    permutation,
    plain_order,
    split_mixed_axis,
    to_onnx_shape,
    to_storage_shape,
)
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering
from edgekit.tflite.ir import Shape


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Neighboring axes that become other neighboring axes with as many entries."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def reshape_value(low: Lowering, value: Value, shape: Shape) -> Value:
    """Reshape a value as ONNX's Reshape does, without moving data where possible.

    An axis can be split, and axes stored side by side in their order can be merged, without moving
    data. Axes stored side by side in another order become one mixed axis. Anything else is
    transposed first.

    Args:
        low: receives the operators.
        value: with fixed sizes.
        shape: as ONNX has it, with as many entries.
    """
    storage, order = split_mixed_axis(value)
    if 0 in shape:
        return Value(tensor=low.reshape(value.tensor, shape), order=plain_order(len(shape)))
    sizes = to_onnx_shape(storage, order)
    groups = _match_axes(sizes, shape)
    places = tuple(axis for axis in order if sizes[axis] != 1)
    tensor = value.tensor
    mixed = _find_mixed(groups, places, sizes)
    if len(mixed) > 1 or not all(_can_stay(group, places) for group in groups):
        # Entries that are stored side by side stay so: rows are moved faster than single entries.
        groups = sorted(groups, key=lambda g: max(places.index(axis) for axis in g.before))
        ones = tuple(axis for axis in order if sizes[axis] == 1)
        wanted = (*ones, *(axis for group in groups for axis in group.before))
        tensor = low.transpose(low.reshape(tensor, storage), permutation(order, wanted))
        mixed = []
    else:
        groups = sorted(groups, key=lambda g: places.index(g.before[0]))
    made = _insert_ones([axis for group in groups for axis in group.after], len(shape))
    return Value(
        tensor=low.reshape(tensor, to_storage_shape(shape, made)),
        order=made,
        mixed=mixed[0] if mixed else None,
    )


def _match_axes(before: Shape, after: Shape) -> list[_Group]:
    """Match the smallest groups of axes with as many entries, without axes of size 1."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    groups: list[_Group] = []
    while left:
        taken, given = [left.pop(0)], [right.pop(0)]
        many, few = before[taken[0]], after[given[0]]
        while many != few:
            if many < few:
                taken.append(left.pop(0))
                many *= before[taken[-1]]
            else:
                given.append(right.pop(0))
                few *= after[given[-1]]
        groups.append(_Group(before=tuple(taken), after=tuple(given)))
    return groups


def _can_stay(group: _Group, places: Order) -> bool:
    """Check that a group is stored side by side, in order unless its axes become one."""
    found = [places.index(axis) for axis in group.before]
    if max(found) - min(found) != len(found) - 1:
        return False
    return found == sorted(found) or len(group.after) == 1


def _find_mixed(groups: list[_Group], places: Order, sizes: Shape) -> list[MixedAxis]:
    """Find the axes that would be mixed if every group stayed where it is stored."""
    found: list[MixedAxis] = []
    for group in groups:
        stored_axes = [axis for axis in places if axis in group.before]
        if len(group.after) == 1 and stored_axes != list(group.before):
            parts = tuple(sizes[axis] for axis in group.before)
            order = tuple(group.before.index(axis) for axis in stored_axes)
            found.append(MixedAxis(axis=group.after[0], sizes=parts, order=order))
    return found


def _insert_ones(order: list[int], rank: int) -> Order:
    """Insert the axes of size 1 into an order, each behind the axis that precedes it."""
    if order == sorted(order):
        return plain_order(rank)
    for axis in range(rank):
        if axis not in order:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(order)
