"""Rules of operators that compute along an axis: reduction, pooling, selection, recurrence."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.graphs.channels.rules.norms import MEANS, distance_from, over
from edgekit.graphs.channels.walking import Axes, Role, Walk, called, integer

# Reductions that do not change if zeros are left out.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
_LOUD = ("ReduceLogSum", "ReduceLogSumExp")


def pools(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through pooling: windows slide along all axes but the first two."""
    axes, out = walk.of(node, 0), walk.size(node.output[0])
    for axis in axes[2:]:
        walk.keep(axis, f"{called(node)} slides its window over this axis")
    for name in node.output:
        if name:
            walk.axes[name] = [*axes[:2], *walk.still(out[2:])]


def reduces(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through a reduction.

    Sums do not change if zeros are removed, and means are rescaled. Other reductions keep the axes
    that they compute over.
    """
    axes = walk.of(node, 0)
    if len(node.input) > 1:
        walk.settle(node, 1)
    gone = over(walk, node)
    _reduced(walk, node, [axes[i] for i in sorted(gone)])
    if node.op_type in _LOUD:
        axes = walk.loudly(node, axes)
    kept = integer(node, "keepdims", 1)
    walk.axes[node.output[0]] = [
        np.zeros(1, np.intp) if i in gone else axis
        for i, axis in enumerate(axes)
        if i not in gone or kept
    ]


def _reduced(walk: Walk, node: NodeProto, gone: Axes) -> None:
    """Record the axes that a reduction computes over."""
    averages = node.op_type in MEANS and walk.is_single(node.input[0])
    if averages:
        walk.means.append((node, gone))
        mean = distance_from(walk, node)
        if mean is not None:
            walk.variances[node.output[0]] = mean
            return
    for axis in gone:
        if averages or node.op_type in _SUMS:
            walk.adds_up(node, axis)
        else:
            walk.keep(axis, f"{called(node)} computes over this axis")


def looks_along(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Softmax and similar operators, which keep one axis."""
    axes = walk.of(node, 0)
    axis = integer(node, "axis", -1) % len(axes)
    walk.keep(axes[axis], f"{called(node)} computes over this axis")
    _others_go(walk, node, walk.loudly(node, axes), axis)


def picks_along(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through ArgMax, ArgMin, TopK and CumSum, which keep one axis."""
    axes = walk.of(node, 0)
    default = -1 if node.op_type == "TopK" else 0
    axis: int | None = integer(node, "axis", default)
    if node.op_type == "CumSum":
        found = walk.observed(node.input[1])
        axis = found[0] if found else None
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    if axis is None:
        walk.untouched(node, f"{called(node)} computes over an axis that is itself computed")
        return
    axis %= len(axes)
    walk.keep(axes[axis], f"{called(node)} computes over this axis")
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
    """Propagate channels through LSTM, GRU and RNN: input channels are free, the state is kept."""
    axes = walk.of(node, 0)
    for axis in axes[:2]:
        walk.keep(axis, f"{called(node)} runs step by step over this axis")
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


def apart(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Trilu, ReverseSequence and LRN.

    The first two depend on positions along some axes, LRN on neighboring channels; these axes are
    kept.
    """
    axes = walk.of(node, 0)
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    if node.op_type == "LRN":
        fixed = [1]
    elif node.op_type == "Trilu":
        fixed = [len(axes) - 2, len(axes) - 1]
    else:
        fixed = [integer(node, "batch_axis", 1), integer(node, "time_axis", 0)]
    for i in fixed:
        walk.keep(axes[i], f"{called(node)} depends on the positions of this axis")
    walk.axes[node.output[0]] = axes


def sampled(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through GridSample and RoiAlign: [N, C, H, W] at given locations."""
    axes = walk.of(node, 0)
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    for axis in (axes[0], *axes[2:]):
        walk.keep(axis, f"{called(node)} depends on the positions of this axis")
    out = walk.still(walk.size(node.output[0]))
    out[1] = axes[1]
    walk.axes[node.output[0]] = out
