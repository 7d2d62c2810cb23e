"""Reshape of a value that keeps its storage order, without moving data, where possible."""

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
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.tflite.ir import Shape


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Neighboring axes that become other neighboring axes with as many entries."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def reshape_value(builder: TfliteGraphBuilder, value: Value, shape: Shape) -> Value:
    """Reshape a value as ONNX's Reshape does, without moving data where possible.

    An axis can be split, and axes stored side by side in their order can be merged, without moving
    data. Axes stored side by side in another order become one mixed axis. Anything else is
    transposed first.

    Args:
        builder: receives the operators.
        value: with fixed sizes.
        shape: as ONNX has it, with as many entries.
    """
    storage, order = split_mixed_axis(value)
    if 0 in shape:
        return Value(tensor=builder.reshape(value.tensor, shape), order=plain_order(len(shape)))
    sizes = to_onnx_shape(storage, order)
    groups = _match_axes(sizes, shape)
    stored_axes = tuple(axis for axis in order if sizes[axis] != 1)
    tensor = value.tensor
    mixed = _find_mixed(groups, stored_axes, sizes)
    if len(mixed) > 1 or not all(_can_stay(group, stored_axes) for group in groups):
        # Adjacent entries stay adjacent, as rows are moved faster than single entries.
        groups = sorted(groups, key=lambda g: max(stored_axes.index(axis) for axis in g.before))
        ones = tuple(axis for axis in order if sizes[axis] == 1)
        new_order = (*ones, *(axis for group in groups for axis in group.before))
        tensor = builder.transpose(builder.reshape(tensor, storage), permutation(order, new_order))
        mixed = []
    else:
        groups = sorted(groups, key=lambda g: stored_axes.index(g.before[0]))
    result_order = _insert_ones([axis for group in groups for axis in group.after], len(shape))
    return Value(
        tensor=builder.reshape(tensor, to_storage_shape(shape, result_order)),
        order=result_order,
        mixed=mixed[0] if mixed else None,
    )


def _match_axes(before: Shape, after: Shape) -> list[_Group]:
    """Match the smallest groups of axes with as many entries, without axes of size 1."""
    before_axes = [axis for axis, size in enumerate(before) if size != 1]
    after_axes = [axis for axis, size in enumerate(after) if size != 1]
    groups: list[_Group] = []
    while before_axes:
        before_group, after_group = [before_axes.pop(0)], [after_axes.pop(0)]
        before_entries, after_entries = before[before_group[0]], after[after_group[0]]
        while before_entries != after_entries:
            if before_entries < after_entries:
                before_group.append(before_axes.pop(0))
                before_entries *= before[before_group[-1]]
            else:
                after_group.append(after_axes.pop(0))
                after_entries *= after[after_group[-1]]
        groups.append(_Group(before=tuple(before_group), after=tuple(after_group)))
    return groups


def _can_stay(group: _Group, stored_axes: Order) -> bool:
    """Check that a group is stored side by side, in order unless its axes become one."""
    positions = [stored_axes.index(axis) for axis in group.before]
    if max(positions) - min(positions) != len(positions) - 1:
        return False
    return positions == sorted(positions) or len(group.after) == 1


def _find_mixed(groups: list[_Group], all_stored_axes: Order, sizes: Shape) -> list[MixedAxis]:
    """Find the axes that would be mixed if every group stayed where it is stored."""
    mixed: list[MixedAxis] = []
    for group in groups:
        stored_axes = [axis for axis in all_stored_axes if axis in group.before]
        if len(group.after) == 1 and stored_axes != list(group.before):
            parts = tuple(sizes[axis] for axis in group.before)
            order = tuple(group.before.index(axis) for axis in stored_axes)
            mixed.append(MixedAxis(axis=group.after[0], sizes=parts, order=order))
    return mixed


def _insert_ones(order: list[int], rank: int) -> Order:
    """Insert the axes of size 1 into an order, each behind the axis that precedes it."""
    if order == sorted(order):
        return plain_order(rank)
    for axis in range(rank):
        if axis not in order:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(order)
