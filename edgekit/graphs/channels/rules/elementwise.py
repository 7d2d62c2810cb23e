"""Operators that work position by position."""

from __future__ import annotations

from onnx import NodeProto

from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.walking import Axes, Walk, called


def passes(walk: Walk, node: NodeProto) -> None:
    """Every output has the axes of the first input; further inputs are scalars."""
    axes = walk.of(node, 0)
    for position, name in enumerate(node.input):
        if position and name:
            for axis in walk.of(node, position):
                walk.keep(axis, f"sets {called(node)}")
    for name in node.output:
        if name:
            walk.axes[name] = axes


def broadcasts(walk: Walk, node: NodeProto) -> None:
    """One output; inputs are lined up at their last axes."""
    size = walk.size(node.output[0])
    read = [walk.of(node, position) for position, name in enumerate(node.input) if name]
    walk.axes[node.output[0]] = lined_up(walk, read, size, called(node))


def lined_up(walk: Walk, read: list[Axes], size: tuple[int, ...], who: str) -> Axes:
    """The axes of what inputs become that are broadcast to a size."""
    made: Axes = []
    for axis, n in enumerate(size):
        back = len(size) - axis
        meeting = [axes[-back] for axes in read if len(axes) >= back]
        made.append(_met(walk, meeting, n, who))
    return made


def _met(walk: Walk, meeting: list[Axis], length: int, who: str) -> Axis:
    full = [axis for axis in meeting if len(axis) == length]
    for axis in meeting:
        if len(axis) != length:
            walk.keep(axis, f"is spread over others by {who}")
    for axis in full[1:]:
        walk.atoms.same(full[0], axis)
    return full[0]
