"""Rules of operators that compute along an axis: reduction, pooling, selection, recurrence."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.compression.pruning.dependency.ops.norms import (
    MEANS,
    find_reduced_axes,
    find_variance_mean,
)
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Role,
    Walk,
    describe_node,
    get_integer,
)

# Reductions that do not change if zeros are left out.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
_LOUD = ("ReduceLogSum", "ReduceLogSumExp")


def propagate_pooling(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through pooling: windows slide along all axes but the first two."""
    axes, out = walk.get_axes(node, 0), walk.size(node.output[0])
    for axis in axes[2:]:
        walk.keep(axis, f"{describe_node(node)} slides its window over this axis")
    for name in node.output:
        if name:
            walk.axes[name] = [*axes[:2], *walk.make_kept_axes(out[2:])]


def propagate_reduction(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through a reduction.

    Sums do not change if zeros are removed, and means are rescaled. Other reductions keep the axes
    that they compute over.
    """
    axes = walk.get_axes(node, 0)
    if len(node.input) > 1:
        walk.settle(node, 1)
    gone = find_reduced_axes(walk, node)
    _record_reduction(walk, node, [axes[i] for i in sorted(gone)])
    if node.op_type in _LOUD:
        axes = walk.mark_nonzero(node, axes)
    kept = get_integer(node, "keepdims", 1)
    walk.axes[node.output[0]] = [
        np.zeros(1, np.intp) if i in gone else axis
        for i, axis in enumerate(axes)
        if i not in gone or kept
    ]


def _record_reduction(walk: Walk, node: NodeProto, gone: Axes) -> None:
    """Record the axes that a reduction computes over."""
    averages = node.op_type in MEANS and walk.is_float32(node.input[0])
    if averages:
        walk.means.append((node, gone))
        mean = find_variance_mean(walk, node)
        if mean is not None:
            walk.variances[node.output[0]] = mean
            return
    for axis in gone:
        if averages or node.op_type in _SUMS:
            walk.keep_nonzero(node, axis)
        else:
            walk.keep(axis, f"{describe_node(node)} computes over this axis")


def propagate_softmax(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Softmax and similar operators, which keep one axis."""
    axes = walk.get_axes(node, 0)
    axis = get_integer(node, "axis", -1) % len(axes)
    walk.keep(axes[axis], f"{describe_node(node)} computes over this axis")
    _propagate_others(walk, node, walk.mark_nonzero(node, axes), axis)


def propagate_arg_max(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through ArgMax, ArgMin, TopK and CumSum, which keep one axis."""
    axes = walk.get_axes(node, 0)
    default = -1 if node.op_type == "TopK" else 0
    axis: int | None = get_integer(node, "axis", default)
    if node.op_type == "CumSum":
        found = walk.read_observed_integers(node.input[1])
        axis = found[0] if found else None
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    if axis is None:
        walk.keep_node(node, f"{describe_node(node)} computes over an axis that is itself computed")
        return
    axis %= len(axes)
    walk.keep(axes[axis], f"{describe_node(node)} computes over this axis")
    if node.op_type != "CumSum":
        axes = walk.mark_nonzero(node, axes)
    _propagate_others(walk, node, axes, axis)


def _propagate_others(walk: Walk, node: NodeProto, axes: Axes, axis: int) -> None:
    for name in node.output:
        if not name:
            continue
        size = walk.size(name)
        if len(size) < len(axes):
            walk.axes[name] = [a for i, a in enumerate(axes) if i != axis]
        else:
            still = np.zeros(size[axis], np.intp)
            walk.axes[name] = [still if i == axis else a for i, a in enumerate(axes)]


def propagate_recurrent(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through LSTM, GRU and RNN: input channels are free, the state is kept."""
    axes = walk.get_axes(node, 0)
    for axis in axes[:2]:
        walk.keep(axis, f"{describe_node(node)} runs step by step over this axis")
    if walk.is_stored(node.input[1]):
        roles: dict[int, Role] = {2: "reads"}
        weight = walk.read_stored_axes(node, 1, roles, {2: (node.input[0], 2)})
    else:
        weight = walk.get_axes(node, 1)
    walk.keep_nonzero(node, axes[2])
    walk.atoms.same(axes[2], weight[2])
    for axis in weight[:2]:
        walk.keep(axis, f"they are part of the state of {describe_node(node)}")
    for position in range(2, len(node.input)):
        if node.input[position]:
            for axis in walk.get_axes(node, position):
                walk.keep(axis, f"they are part of the state of {describe_node(node)}")
    for name in node.output:
        if name:
            walk.axes[name] = walk.make_kept_axes(walk.size(name))


def propagate_position_dependent(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Trilu, ReverseSequence and LRN.

    The first two depend on positions along some axes, LRN on neighboring channels; these axes are
    kept.
    """
    axes = walk.get_axes(node, 0)
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    if node.op_type == "LRN":
        fixed = [1]
    elif node.op_type == "Trilu":
        fixed = [len(axes) - 2, len(axes) - 1]
    else:
        fixed = [get_integer(node, "batch_axis", 1), get_integer(node, "time_axis", 0)]
    for i in fixed:
        walk.keep(axes[i], f"{describe_node(node)} depends on the positions of this axis")
    walk.axes[node.output[0]] = axes


def propagate_grid_sample(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through GridSample and RoiAlign: [N, C, H, W] at given locations."""
    axes = walk.get_axes(node, 0)
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    for axis in (axes[0], *axes[2:]):
        walk.keep(axis, f"{describe_node(node)} depends on the positions of this axis")
    out = walk.make_kept_axes(walk.size(node.output[0]))
    out[1] = axes[1]
    walk.axes[node.output[0]] = out
