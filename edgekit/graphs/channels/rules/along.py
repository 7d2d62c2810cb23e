"""Operators that look along an axis: normalisation, reduction, pooling, choice, recurrence."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.graphs.channels.walking import Axes, Role, Walk, called, integer, ints

# What leaving out zeros does not change.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


def per_channel(walk: Walk, node: NodeProto) -> None:
    """BatchNormalization and InstanceNormalization: vectors along the channels."""
    axes = walk.of(node, 0)
    for position in range(1, len(node.input)):
        walk.atoms.same(axes[1], walk.of(node, position)[0])
    if node.op_type == "InstanceNormalization":
        for axis in axes[2:]:
            walk.keep(axis, f"{called(node)} averages over it")
    walk.axes[node.output[0]] = axes
    for name in node.output[1:]:
        if name:
            walk.axes[name] = walk.still(walk.size(name))


def layer_norm(walk: Walk, node: NodeProto) -> None:
    """LayerNormalization: what goes was zero to the mean and the variance."""
    axes = walk.of(node, 0)
    first = integer(node, "axis", -1) % len(axes)
    for position in range(1, len(node.input)):
        if node.input[position]:
            own = walk.of(node, position)
            for mine, other in zip(reversed(own), reversed(axes), strict=False):
                walk.atoms.same(other, mine)
    if first == len(axes) - 1:
        walk.atoms.mark(axes[first], "channels")
        walk.means.append((node, axes[first:]))
    else:
        for axis in axes[first:]:
            walk.keep(axis, f"{called(node)} averages over it")
    walk.axes[node.output[0]] = axes
    for name in node.output[1:]:
        if name:
            walk.keep(axes[first], f"{called(node)} averages over it")
            walk.axes[name] = walk.still(walk.size(name))


def pools(walk: Walk, node: NodeProto) -> None:
    """Windows slide along all axes but the first two."""
    axes, out = walk.of(node, 0), walk.size(node.output[0])
    for axis in axes[2:]:
        walk.keep(axis, f"{called(node)} slides along it")
    for name in node.output:
        if name:
            walk.axes[name] = [*axes[:2], *walk.still(out[2:])]


def reduces(walk: Walk, node: NodeProto) -> None:
    """Sums over channels go on without what is zero, means are scaled; others stay."""
    axes = walk.of(node, 0)
    rank = len(axes)
    named = ints(node, "axes", [])
    if len(node.input) > 1 and node.input[1]:
        named = walk.observed(node.input[1]) or []
        for each in walk.of(node, 1):
            walk.keep(each, f"sets {called(node)}")
    all_of_them = not named and not integer(node, "noop_with_empty_axes", 0)
    over = {a % rank for a in named} if named else set(range(rank)) if all_of_them else set()
    gone = [axes[i] for i in sorted(over)]
    if node.op_type == "ReduceMean":
        walk.means.append((node, gone))
    elif node.op_type not in _SUMS:
        for axis in gone:
            walk.keep(axis, f"{called(node)} looks along it")
    kept = integer(node, "keepdims", 1)
    walk.axes[node.output[0]] = [
        np.zeros(1, np.intp) if i in over else axis
        for i, axis in enumerate(axes)
        if i not in over or kept
    ]


def looks_along(walk: Walk, node: NodeProto) -> None:
    """Softmax and its like: one axis stays as it is."""
    axes = walk.of(node, 0)
    axis = integer(node, "axis", -1) % len(axes)
    walk.keep(axes[axis], f"{called(node)} looks along it")
    _others_go(walk, node, axes, axis)


def picks_along(walk: Walk, node: NodeProto) -> None:
    """ArgMax, TopK, CumSum: one axis stays as it is."""
    axes = walk.of(node, 0)
    default = -1 if node.op_type == "TopK" else 0
    axis: int | None = integer(node, "axis", default)
    if node.op_type == "CumSum":
        found = walk.observed(node.input[1])
        axis = found[0] if found else None
    for position in range(1, len(node.input)):
        for each in walk.of(node, position):
            walk.keep(each, f"sets {called(node)}")
    if axis is None:
        walk.untouched(node, f"{called(node)} looks along an axis that is computed")
        return
    axis %= len(axes)
    walk.keep(axes[axis], f"{called(node)} looks along it")
    _others_go(walk, node, axes, axis)


def _others_go(walk: Walk, node: NodeProto, axes: Axes, axis: int) -> None:
    for name in node.output:
        if not name:
            continue
        size = walk.size(name)
        if len(size) < len(axes):
            walk.axes[name] = [a for i, a in enumerate(axes) if i != axis]
        else:
            still = np.zeros(size[axis], np.intp)
            walk.axes[name] = [still if i == axis else a for i, a in enumerate(axes)]


def recurrent(walk: Walk, node: NodeProto) -> None:
    """LSTM, GRU and RNN: what they read may go; their own state stays."""
    axes = walk.of(node, 0)
    for axis in axes[:2]:
        walk.keep(axis, f"{called(node)} steps along it")
    if walk.is_stored(node.input[1]):
        roles: dict[int, Role] = {2: "reads"}
        weight = walk.stored(node, 1, roles, {2: (node.input[0], 2)})
    else:
        weight = walk.of(node, 1)
    walk.atoms.same(axes[2], weight[2])
    for axis in weight[:2]:
        walk.keep(axis, f"is the state of {called(node)}")
    for position in range(2, len(node.input)):
        if node.input[position]:
            for axis in walk.of(node, position):
                walk.keep(axis, f"is the state of {called(node)}")
    for name in node.output:
        if name:
            walk.axes[name] = walk.still(walk.size(name))
