"""Rules of operators that concatenate axes, split them, or select positions."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Role,
    Walk,
    describe_node,
    get_integer,
    get_ints,
)


def propagate_concat(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Concat: one axis is concatenated, all others are unified."""
    read = [walk.get_axes(node, position) for position in range(len(node.input))]
    axis = get_integer(node, "axis", 0) % len(read[0])
    made: Axes = []
    for i in range(len(read[0])):
        meeting = [axes[i] for axes in read]
        if i != axis:
            for labels in meeting[1:]:
                walk.atoms.same(meeting[0], labels)
        made.append(np.concatenate(meeting) if i == axis else walk.atoms.combine_sum(meeting))
    walk.axes[node.output[0]] = made


def propagate_split(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Split: each part has a range of the axis."""
    axes = walk.get_axes(node, 0)
    if len(node.input) > 1:
        walk.settle(node, 1)
    axis = get_integer(node, "axis", 0) % len(axes)
    start = 0
    for name in node.output:
        length = walk.size(name)[axis] if name else 0
        walk.axes[name] = [*axes[:axis], axes[axis][start : start + length], *axes[axis + 1 :]]
        start += length
    walk.picks.append((node, axes[axis]))


def propagate_slice(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Slice with known bounds; otherwise the axis is kept."""
    axes, out = walk.get_axes(node, 0), walk.size(node.output[0])
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    bounds = [walk.read_observed_integers(name) for name in node.input[1:]]
    starts, ends = bounds[0], bounds[1]
    taken = bounds[2] if len(bounds) > 2 else None
    steps = bounds[3] if len(bounds) > 3 else None
    made = list(axes)
    if starts is None or ends is None:
        for i in [i % len(axes) for i in taken] if taken else range(len(axes)):
            walk.keep(axes[i], f"{describe_node(node)} slices this axis at computed positions")
            made[i] = np.zeros(out[i], np.intp)
    else:
        for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis = (taken[k] if taken else k) % len(axes)
            made[axis] = _slice_axis(
                walk, node, axes[axis], to_python_slice(start, end, steps[k] if steps else 1)
            )
    walk.axes[node.output[0]] = made


def to_python_slice(start: int, end: int, step: int) -> slice:
    """Convert ONNX bounds to a slice; a very low end with a negative step means no end."""
    return slice(start, None if step < 0 and end < -(2**31) + 1 else end, step)


def _slice_axis(walk: Walk, node: NodeProto, axis: Axis, part: slice) -> Axis:
    taken = axis[part]
    whole = len(taken) == len(axis) and part.step > 0
    steady = all(walk.numbers(name) is not None for name in node.input[1:] if name)
    if not steady or not (whole or part.step == 1):
        walk.keep(
            axis, f"{describe_node(node)} slices this axis at computed positions or with a step"
        )
    elif not whole:
        walk.picks.append((node, axis))
    return axis if whole else taken


def propagate_gather(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Gather: rows of a table, or positions of an axis."""
    axis = get_integer(node, "axis", 0)
    picked = walk.get_axes(node, 1)
    for each in picked:
        walk.keep(each, f"they are indices of {describe_node(node)}")
    axes = (
        _read_table_axes(walk, node, axis)
        if walk.is_stored(node.input[0])
        else walk.get_axes(node, 0)
    )
    axis %= len(axes)
    numbers = walk.numbers(node.input[1])
    if numbers is None or not picked:
        walk.keep(axes[axis], f"{describe_node(node)} selects positions of this axis")
        middle = walk.make_kept_axes(walk.size(node.input[1]))
    elif len(picked) == 1:
        middle = [axes[axis][np.array(numbers)]]
        walk.picks.append((node, axes[axis]))
    else:
        walk.keep(axes[axis], f"{describe_node(node)} selects positions of this axis")
        middle = walk.make_kept_axes(walk.size(node.input[1]))
    walk.axes[node.output[0]] = [*axes[:axis], *middle, *axes[axis + 1 :]]


def _read_table_axes(walk: Walk, node: NodeProto, axis: int) -> list[Axis]:
    """Return the axes of a stored table, whose entries are the channels of an embedding."""
    rank = len(walk.size(node.input[0]))
    axis %= rank
    behind = len(walk.size(node.output[0])) - rank
    roles: dict[int, Role] = {i: "makes" for i in range(rank) if i != axis}
    values = {i: (node.output[0], i if i < axis else i + behind) for i in roles}
    still = {axis: np.zeros(walk.size(node.input[0])[axis], np.intp)}
    return walk.read_stored_axes(node, 0, roles, values, still)


def propagate_pad(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Pad: the padding itself is kept."""
    axes, out = walk.get_axes(node, 0), walk.size(node.output[0])
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    pads = (
        walk.read_observed_integers(node.input[1])
        if len(node.input) > 1
        else get_ints(node, "pads", [])
    )
    chosen = (
        walk.read_observed_integers(node.input[3])
        if len(node.input) > 3 and node.input[3]
        else None
    )
    named = [i % len(axes) for i in chosen] if chosen else list(range(len(axes)))
    made = list(axes)
    constant = not any(a.name == "mode" and a.s not in (b"", b"constant") for a in node.attribute)
    for k, axis in enumerate(named):
        before, after = (pads[k], pads[k + len(named)]) if pads else (0, 0)
        if pads is None or min(before, after) < 0 or (max(before, after) and not constant):
            walk.keep(axes[axis], f"{describe_node(node)} depends on the positions of this axis")
            made[axis] = np.zeros(out[axis], np.intp)
        elif before or after:
            edges = walk.make_kept_axes([before, after])
            made[axis] = np.concatenate([edges[0], axes[axis], edges[1]])
    filled = walk.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    walk.axes[node.output[0]] = made if filled == 0.0 else walk.mark_nonzero(node, made)


def propagate_tile(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Tile: the axis is repeated."""
    axes, out = walk.get_axes(node, 0), walk.size(node.output[0])
    walk.settle(node, 1)
    walk.axes[node.output[0]] = [
        np.tile(axis, n // max(len(axis), 1)) for axis, n in zip(axes, out, strict=True)
    ]
