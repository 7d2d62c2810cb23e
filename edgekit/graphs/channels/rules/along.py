"""Operators that look along an axis: normalisation, reduction, pooling, choice, recurrence."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.walking import Axes, Role, Walk, called, integer, ints

# What leaving out zeros does not change.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
_LOUD = ("ReduceLogSum", "ReduceLogSumExp")


def per_channel(walk: Walk, node: NodeProto) -> None:
    """BatchNormalization and InstanceNormalization: vectors along the channels."""
    axes = walk.of(node, 0)
    vectors = [walk.of(node, position)[0] for position in range(1, len(node.input))]
    for vector in vectors:
        walk.atoms.same(axes[1], vector)
    if node.op_type == "InstanceNormalization":
        for axis in axes[2:]:
            walk.keep(axis, f"{called(node)} averages over it")
    made = walk.atoms.all_of(vectors[:2])
    walk.axes[node.output[0]] = [*walk.loudly(node, axes[:1]), made, *walk.loudly(node, axes[2:])]
    for name in node.output[1:]:
        if name:
            walk.axes[name] = walk.still(walk.size(name))


def layer_norm(walk: Walk, node: NodeProto) -> None:
    """LayerNormalization: what goes was zero to the mean and the variance."""
    axes = walk.of(node, 0)
    first = integer(node, "axis", -1) % len(axes)
    made = scaled_along(walk, node, axes)
    if first == len(axes) - 1:
        walk.adds_up(node, axes[first])
        walk.atoms.mark(axes[first], "channels")
        walk.means.append((node, axes[first:]))
    else:
        for axis in axes[first:]:
            walk.keep(axis, f"{called(node)} averages over it")
    walk.axes[node.output[0]] = [*walk.loudly(node, axes[:-1]), made]
    for name in node.output[1:]:
        if name:
            walk.keep(axes[first], f"{called(node)} averages over it")
            walk.axes[name] = walk.still(walk.size(name))


def scaled_along(walk: Walk, node: NodeProto, axes: Axes) -> Axis:
    """The last axis of what is scaled and shifted by the further inputs of a node."""
    read = [walk.of(node, p) for p in range(1, len(node.input)) if node.input[p]]
    for own in read:
        for mine, other in zip(reversed(own), reversed(axes), strict=False):
            if len(mine) == len(other):
                walk.atoms.same(other, mine)
            else:
                walk.keep(other, f"is spread over others by {called(node)}")
    last = [own[-1] for own in read if own and len(own[-1]) == len(axes[-1])]
    if len(last) < len(read) or not last:
        return walk.atoms.loudly(axes[-1], called(node))
    return walk.atoms.all_of(last)


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
    if len(node.input) > 1:
        walk.settle(node, 1)
    over = _over(walk, node)
    _reduced(walk, node, [axes[i] for i in sorted(over)])
    if node.op_type in _LOUD:
        axes = walk.loudly(node, axes)
    kept = integer(node, "keepdims", 1)
    walk.axes[node.output[0]] = [
        np.zeros(1, np.intp) if i in over else axis
        for i, axis in enumerate(axes)
        if i not in over or kept
    ]


def _over(walk: Walk, node: NodeProto) -> set[int]:
    """The axes that a reduction goes over, by number."""
    rank = len(walk.size(node.input[0]))
    named = ints(node, "axes", [])
    if len(node.input) > 1 and node.input[1]:
        named = walk.observed(node.input[1]) or []
    if named:
        return {a % rank for a in named}
    return set() if integer(node, "noop_with_empty_axes", 0) else set(range(rank))


def _reduced(walk: Walk, node: NodeProto, gone: Axes) -> None:
    """The axes that a reduction goes over."""
    if node.op_type == "ReduceMean":
        walk.means.append((node, gone))
        mean = _distance_from(walk, node)
        if mean is not None:
            walk.variances[node.output[0]] = mean
            return
    for axis in gone:
        if node.op_type == "ReduceMean" or node.op_type in _SUMS:
            walk.adds_up(node, axis)
        else:
            walk.keep(axis, f"{called(node)} looks along it")


def _distance_from(walk: Walk, node: NodeProto) -> str | None:
    """The mean of which a ReduceMean yields the variance, as in a LayerNormalization written out.

    There the square distance of what is zero is that of the mean from zero.
    """
    square = walk.index.producer.get(node.input[0])
    if square is None or square.op_type not in ("Pow", "Mul"):
        return None
    if square.op_type == "Pow" and walk.scalar(square.input[1]) != 2.0:
        return None
    if square.op_type == "Mul" and square.input[0] != square.input[1]:
        return None
    distance = walk.index.producer.get(square.input[0])
    if distance is None or distance.op_type != "Sub":
        return None
    for value, name in (distance.input, distance.input[::-1]):
        mean = walk.index.producer.get(name)
        if mean is None or mean.op_type != "ReduceMean" or mean.input[0] != value:
            continue
        if _over(walk, mean) == _over(walk, node) and integer(mean, "keepdims", 1):
            return str(name)
    return None


def looks_along(walk: Walk, node: NodeProto) -> None:
    """Softmax and its like: one axis stays as it is."""
    axes = walk.of(node, 0)
    axis = integer(node, "axis", -1) % len(axes)
    walk.keep(axes[axis], f"{called(node)} looks along it")
    _others_go(walk, node, walk.loudly(node, axes), axis)


def picks_along(walk: Walk, node: NodeProto) -> None:
    """ArgMax, TopK, CumSum: one axis stays as it is."""
    axes = walk.of(node, 0)
    default = -1 if node.op_type == "TopK" else 0
    axis: int | None = integer(node, "axis", default)
    if node.op_type == "CumSum":
        found = walk.observed(node.input[1])
        axis = found[0] if found else None
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    if axis is None:
        walk.untouched(node, f"{called(node)} looks along an axis that is computed")
        return
    axis %= len(axes)
    walk.keep(axes[axis], f"{called(node)} looks along it")
    if node.op_type != "CumSum":
        axes = walk.loudly(node, axes)
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
    walk.adds_up(node, axes[2])
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
