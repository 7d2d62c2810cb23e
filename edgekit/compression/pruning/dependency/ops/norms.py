"""Rules of normalization over a batch, sample, group of channels or layer, also when composed."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Walk,
    describe_node,
    get_integer,
    get_ints,
)

# Operators that compute means over axes.
MEANS = ("ReduceMean", "GlobalAveragePool")


def propagate_batch_norm(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through BatchNormalization and InstanceNormalization.

    Their vectors are along the channels.
    """
    axes = walk.get_axes(node, 0)
    vectors = [walk.get_axes(node, position)[0] for position in range(1, len(node.input))]
    for vector in vectors:
        walk.atoms.same(axes[1], vector)
    if node.op_type == "InstanceNormalization":
        for axis in axes[2:]:
            walk.keep(axis, f"{describe_node(node)} averages over this axis")
    made = walk.atoms.combine_sum(vectors[:2])
    walk.axes[node.output[0]] = [
        *walk.mark_nonzero(node, axes[:1]),
        made,
        *walk.mark_nonzero(node, axes[2:]),
    ]
    for name in node.output[1:]:
        if name:
            walk.axes[name] = walk.make_kept_axes(walk.size(name))


def propagate_layer_norm(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through LayerNormalization and RMSNormalization.

    Removed channels must be zero, so that mean and variance can be corrected.
    """
    axes = walk.get_axes(node, 0)
    first = get_integer(node, "axis", -1) % len(axes)
    made = unify_scales(walk, node, axes)
    if first == len(axes) - 1 and walk.is_float32(node.input[0]):
        walk.keep_nonzero(node, axes[first])
        walk.atoms.mark_kind(axes[first], "channels")
        walk.means.append((node, axes[first:]))
    else:
        for axis in axes[first:]:
            walk.keep(axis, f"{describe_node(node)} averages over this axis")
    walk.axes[node.output[0]] = [*walk.mark_nonzero(node, axes[:-1]), made]
    for name in node.output[1:]:
        if name:
            walk.keep(axes[first], f"{describe_node(node)} averages over this axis")
            walk.axes[name] = walk.make_kept_axes(walk.size(name))


def propagate_skip_layer_norm(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through SkipLayerNormalization, the normalization of a sum.

    Inputs are x, skip, gamma, beta and bias; the simplified operator, which subtracts no mean, has
    no beta.

    Source: the contrib operators of onnxruntime.
    """
    axes, skip = walk.get_axes(node, 0), walk.get_axes(node, 1)
    simple = node.op_type.startswith("SkipSimplified")
    scales = [2] if simple else [2, 3]
    vectors = {p: walk.get_axes(node, p)[0] for p in range(2, len(node.input)) if node.input[p]}
    for mine, other in zip(reversed(axes), reversed(skip), strict=False):
        walk.atoms.same(mine, other)
    for vector in vectors.values():
        walk.atoms.same(axes[-1], vector)
    added = [skip[-1], *(v for p, v in vectors.items() if p not in scales)]
    total = walk.atoms.combine_sum([axes[-1], *added])
    if not walk.is_float32(node.input[0]):
        walk.keep(total, f"{describe_node(node)} averages over this axis")
    walk.keep_nonzero(node, total)
    walk.atoms.mark_kind(total, "channels")
    walk.means.append((node, [total]))
    made = walk.atoms.combine_sum([vectors[p] for p in scales if p in vectors])
    walk.axes[node.output[0]] = [*walk.mark_nonzero(node, axes[:-1]), made]
    for place, name in enumerate(node.output[1:], 1):
        if name and place < 3:
            walk.keep(total, f"{describe_node(node)} averages over this axis")
            walk.axes[name] = walk.make_kept_axes(walk.size(name))
        elif name:
            walk.axes[name] = [*walk.mark_nonzero(node, axes[:-1]), total]


def propagate_group_norm(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through GroupNormalization [N, C, ...]: whole groups may be removed.

    Scales are per group or per channel.
    """
    axes = walk.get_axes(node, 0)
    count = get_integer(node, "num_groups", 1)
    whole = walk.make_output_axis(count)
    spread = walk.atoms.product([whole, np.zeros(len(axes[1]) // count, np.intp)])
    walk.atoms.same(axes[1], spread)
    vectors = [walk.get_axes(node, position)[0] for position in (1, 2)]
    for vector in vectors:
        walk.atoms.same(whole if len(vector) == count else spread, vector)
    for axis in axes[2:]:
        walk.keep(axis, f"{describe_node(node)} averages over this axis")
    walk.counts.append((node, "num_groups", whole))
    loud = any(walk.atoms.has_nonzero(vector) for vector in vectors)
    made = walk.atoms.mark_nonzero(spread, describe_node(node)) if loud else spread
    walk.axes[node.output[0]] = [*walk.mark_nonzero(node, axes[:1]), made, *axes[2:]]


def propagate_mean_variance_norm(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through MeanVarianceNormalization: the averaged axes are kept."""
    axes = walk.get_axes(node, 0)
    for i in get_ints(node, "axes", [0, 2, 3]):
        walk.keep(axes[i], f"{describe_node(node)} averages over this axis")
    walk.axes[node.output[0]] = walk.mark_nonzero(
        node, axes
    )  # zero variance: division of zero by zero


def unify_scales(walk: Walk, node: NodeProto, axes: Axes) -> Axis:
    """Unify the scale and shift of a node with ``axes``; return the scaled last axis."""
    read = [walk.get_axes(node, p) for p in range(1, len(node.input)) if node.input[p]]
    for own in read:
        for mine, other in zip(reversed(own), reversed(axes), strict=False):
            if len(mine) == len(other):
                walk.atoms.same(other, mine)
            else:
                walk.keep(other, f"they are broadcast by {describe_node(node)}")
    last = [own[-1] for own in read if own and len(own[-1]) == len(axes[-1])]
    if len(last) < len(read) or not last:
        return walk.atoms.mark_nonzero(axes[-1], describe_node(node))
    return walk.atoms.combine_sum(last)


def find_reduced_axes(walk: Walk, node: NodeProto) -> set[int]:
    """Return the numbers of the axes that a reduction computes over."""
    rank = len(walk.size(node.input[0]))
    if node.op_type == "GlobalAveragePool":
        return set(range(2, rank))
    named = get_ints(node, "axes", [])
    if len(node.input) > 1 and node.input[1]:
        named = walk.read_observed_integers(node.input[1]) or []
    if named:
        return {a % rank for a in named}
    return set() if get_integer(node, "noop_with_empty_axes", 0) else set(range(rank))


def find_variance_mean(walk: Walk, node: NodeProto) -> str | None:
    """Return the mean from which a ReduceMean computes the variance; ``None`` for other means.

    This is a LayerNormalization composed of several operators. There the squared distance of a
    removed zero is the square of the mean.
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
        if mean is None or mean.op_type not in MEANS or mean.input[0] != value:
            continue
        if find_reduced_axes(walk, mean) == find_reduced_axes(walk, node) and get_integer(
            mean, "keepdims", 1
        ):
            return str(name)
    return None
