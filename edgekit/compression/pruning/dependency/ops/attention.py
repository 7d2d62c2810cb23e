"""Rules of attention operators: whole heads may be removed, positions inside a head are kept."""

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
)


def propagate_attention(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Attention.

    Q, K and V are [N, L, heads x size] or [N, heads, L, size].
    """
    rank = len(walk.size(node.input[0]))
    at = 1 if rank == 4 else 2
    if any(node.input[4:6]) or any(node.output[1:]):
        walk.keep_node(node, f"{describe_node(node)} caches keys and values")
        return
    queries = walk.size(node.input[0])[1] if rank == 4 else get_integer(node, "q_num_heads", 1)
    shared = walk.size(node.input[1])[1] if rank == 4 else get_integer(node, "kv_num_heads", 1)
    heads = walk.make_output_axis(shared)
    asking = np.repeat(heads, queries // shared)
    read = [walk.get_axes(node, position) for position in range(3)]
    for axes, axis in zip(read, (asking, heads, heads), strict=True):
        _unify_heads(walk, node, axes[at], axis)
        _keep_other_axes(walk, node, axes, at)
    _propagate_mask(walk, node, 3, asking)
    if rank == 3:
        walk.counts.append((node, "q_num_heads", asking))
        walk.counts.append((node, "kv_num_heads", heads))
    _set_output(walk, node, at, asking, quiet=read[2][at])


def propagate_multi_head_attention(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through MultiHeadAttention: Q, K and V as [N, L, heads x size].

    Source: the contrib operators of onnxruntime.
    """
    inputs = [*node.input, *[""] * 10]
    known = all(len(walk.size(name)) == 3 for name in node.input[:3]) and len(node.input) > 2
    if not known or not all(node.input[:3]) or any(inputs[6:]) or any(node.output[1:]):
        walk.keep_node(node, f"pruning does not support this variant of {describe_node(node)}")
        return
    heads = walk.make_output_axis(get_integer(node, "num_heads", 1))
    read = [walk.get_axes(node, position) for position in range(3)]
    for axes in read:
        _unify_heads(walk, node, axes[2], heads)
        _keep_other_axes(walk, node, axes, 2)
    if inputs[3]:
        parts = [_spread_heads(walk, heads, len(axes[2])) for axes in read]
        walk.atoms.same(walk.get_axes(node, 3)[0], np.concatenate(parts))
    if inputs[4]:
        walk.settle(node, 4)
    _propagate_mask(walk, node, 5, heads)
    walk.counts.append((node, "num_heads", heads))
    _set_output(walk, node, 2, heads, quiet=read[2][2])


def propagate_packed_attention(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through onnxruntime's Attention, with weights [D, 3 x heads x size]."""
    inputs = [*node.input, *[""] * 10]
    parts = len(inputs[1]) and walk.size(inputs[1])[1] % 3 == 0
    own = any(a.name == "qkv_hidden_sizes" for a in node.attribute)
    if own or not parts or any(inputs[4:]) or any(node.output[1:]):
        walk.keep_node(node, f"pruning does not support this variant of {describe_node(node)}")
        return
    axes = walk.get_axes(node, 0)
    heads = walk.make_output_axis(get_integer(node, "num_heads", 1))
    walk.atoms.mark_kind(heads, "heads")
    third = _spread_heads(walk, heads, walk.size(inputs[1])[1] // 3)
    roles: dict[int, Role] = {0: "reads", 1: "makes"}
    values = {0: (node.input[0], 2), 1: (node.output[0], 2)}
    if walk.is_stored(inputs[1]):
        weight = walk.read_stored_axes(node, 1, roles, values, {1: np.tile(third, 3)})
    else:
        weight = walk.get_axes(node, 1)
        walk.atoms.same(weight[1], np.tile(third, 3))
    walk.keep_nonzero(node, axes[2])
    walk.atoms.same(axes[2], weight[0])
    walk.keep(axes[1], f"{describe_node(node)} computes over this axis")
    if inputs[2]:
        walk.atoms.same(walk.get_axes(node, 2)[0], np.tile(third, 3))
    if inputs[3]:
        walk.settle(node, 3)
    walk.counts.append((node, "num_heads", heads))
    _set_output(walk, node, 2, heads, quiet=third)


def propagate_rotary_embedding(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through RotaryEmbedding: [N, heads, L, size] or [N, L, heads x size]."""
    axes = walk.get_axes(node, 0)
    for position in range(1, len(node.input)):
        walk.settle(node, position)
    if len(axes) == 4:
        for axis in axes[2:]:
            walk.keep(axis, f"{describe_node(node)} rotates pairs of this axis")
    else:
        count = get_integer(node, "num_heads", 0)
        if not count:
            walk.keep_node(node, f"pruning does not support this variant of {describe_node(node)}")
            return
        heads = walk.make_output_axis(count)
        _unify_heads(walk, node, axes[2], heads)
        walk.counts.append((node, "num_heads", heads))
    walk.axes[node.output[0]] = axes


def _spread_heads(walk: Walk, heads: Axis, length: int) -> Axis:
    return walk.atoms.product([heads, np.zeros(length // len(heads), np.intp)])


def _unify_heads(walk: Walk, node: NodeProto, axis: Axis, heads: Axis) -> None:
    """Unify an axis of heads times head size with the heads; positions inside a head are kept."""
    walk.atoms.same(axis, _spread_heads(walk, heads, len(axis)))
    walk.atoms.mark_kind(heads, "heads")


def _keep_other_axes(walk: Walk, node: NodeProto, axes: Axes, at: int) -> None:
    for place, axis in enumerate(axes):
        if place not in (0, at):
            walk.keep(axis, f"{describe_node(node)} computes over this axis")


def _propagate_mask(walk: Walk, node: NodeProto, position: int, heads: Axis) -> None:
    """Propagate channels through the mask added to the scores [..., heads, L, L]."""
    if len(node.input) <= position or not node.input[position]:
        return
    axes = walk.get_axes(node, position)
    for place, axis in enumerate(axes):
        if place == len(axes) - 3 and len(axis) == len(heads) and len(axis) > 1:
            walk.atoms.same(axis, heads)
        else:
            walk.keep(axis, f"sets {describe_node(node)}")


def _set_output(walk: Walk, node: NodeProto, at: int, heads: Axis, *, quiet: Axis) -> None:
    """Set the axes of the output, which is zero where V is."""
    out = walk.make_kept_axes(walk.size(node.output[0]))
    out[at] = _spread_heads(walk, heads, len(out[at]))
    if walk.atoms.has_nonzero(quiet):
        out[at] = walk.atoms.mark_nonzero(out[at], describe_node(node))
    walk.axes[node.output[0]] = out
