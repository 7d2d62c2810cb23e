"""Rules of operators that change the shape or the layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Walk,
    describe_node,
    get_integer,
    get_ints,
)
from edgekit.onnx_graph.graph_index import read_attribute

# Index of the input of Resize that holds the output shape.
_SIZES = 3


def propagate_reshape(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Reshape, Flatten, Squeeze or Unsqueeze by the shapes around it."""
    for position in range(1, len(node.input)):
        if node.op_type == "Reshape":
            walk.keep_shape_input(node, position, walk.get_axes(node, 0))
        else:
            walk.settle(node, position)
    size = walk.size(node.output[0])
    walk.axes[node.output[0]] = reshape_axes(
        walk, walk.get_axes(node, 0), size, describe_node(node)
    )


def reshape_axes(walk: Walk, axes: Axes, size: Sequence[int], who: str) -> Axes:
    """Return the axes of the same entries, in the same order, in another shape."""
    made: Axes = walk.make_kept_axes(size)
    if 0 in size:
        for axis in axes:
            walk.keep(axis, f"{who} returns an empty tensor")
        return made
    for before, after in _find_segments([len(a) for a in axes], size):
        factors = _find_common_factors([len(axes[i]) for i in before], [size[i] for i in after])
        if factors is None:
            for i in before:
                walk.keep(axes[i], f"{who} mixes positions of this axis")
            continue
        rest = iter(factors)
        parts: Axes = []
        for i in before:
            parts += _split_axis(walk, axes[i], _take_factors(rest, len(axes[i])))
        whole = iter(parts)
        for i in after:
            made[i] = walk.atoms.product(_take_parts(whole, size[i]))
    return made


def _find_segments(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[list[int], list[int]]]:
    """Return minimal runs of axes with equal products before and after; skip axes of size 1."""
    read = [i for i, n in enumerate(before) if n != 1]
    into = [i for i, n in enumerate(after) if n != 1]
    found = []
    while read and into:
        left, right = [read.pop(0)], [into.pop(0)]
        while True:
            one = math.prod(before[i] for i in left)
            other = math.prod(after[i] for i in right)
            if one == other:
                break
            if one < other:
                left.append(read.pop(0))
            else:
                right.append(into.pop(0))
        found.append((left, right))
    return found


def _find_common_factors(before: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """Return sizes of which the axes of both shapes are products; ``None`` if there are none."""
    cuts = {math.prod(sizes[:k]) for sizes in (before, after) for k in range(len(sizes) + 1)}
    ordered = sorted(cuts)
    if any(b % a for a, b in pairwise(ordered)):
        return None
    return [b // a for a, b in pairwise(ordered)]


def _take_factors(factors: Iterator[int], length: int) -> list[int]:
    taken: list[int] = []
    while math.prod(taken) < length:
        taken.append(next(factors))
    return taken


def _take_parts(parts: Iterator[Axis], length: int) -> list[Axis]:
    found: list[Axis] = []
    while math.prod(len(p) for p in found) < length:
        found.append(next(parts))
    return found


def _split_axis(walk: Walk, axis: Axis, sizes: list[int]) -> Axes:
    """Return the axes of which an axis is the product."""
    if len(sizes) == 1:
        return [axis]
    parts = _find_single_part(walk, axis, sizes)
    if parts is None:
        parts = [walk.make_output_axis(n) for n in sizes]
        walk.atoms.same(axis, walk.atoms.product(parts))
    return [-np.abs(part) for part in parts] if walk.atoms.has_nonzero(axis) else parts


def _find_single_part(walk: Walk, axis: Axis, sizes: list[int]) -> Axes | None:
    """Return the parts if all but one are kept; ``None`` if more than one has free atoms."""
    still = walk.make_kept_axes(sizes)
    numbers: dict[frozenset[int], int] = {frozenset(): 0}
    alive = [frozenset(walk.atoms.find_free_roots(label)) for label in axis.tolist()]
    roots = np.array([numbers.setdefault(each, len(numbers)) for each in alive]).reshape(sizes)
    if not roots.any():
        return still
    for k in range(len(sizes)):
        first = tuple(slice(None) if i == k else slice(0, 1) for i in range(len(sizes)))
        if (roots == roots[first]).all():
            still[k] = axis.reshape(sizes)[first].ravel()
            return still
    return None


def propagate_transpose(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Transpose."""
    axes = walk.get_axes(node, 0)
    order = get_ints(node, "perm", list(range(len(axes)))[::-1])
    walk.axes[node.output[0]] = [axes[i] for i in order]


def propagate_depth_to_space(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through DepthToSpace: [N, C, H, W] to [N, C / b², H b, W b]."""
    n, c, h, w = walk.size(node.input[0])
    b = get_integer(node, "blocksize", 1)
    by_column = read_attribute(node, "mode", b"DCR") == b"CRD"
    inner = [n, c // b**2, b, b, h, w] if by_column else [n, b, b, c // b**2, h, w]
    order = [0, 1, 4, 2, 5, 3] if by_column else [0, 3, 4, 1, 5, 2]
    _propagate_blocks(walk, node, inner, order)


def propagate_space_to_depth(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through SpaceToDepth: [N, C, H, W] to [N, C b², H / b, W / b]."""
    n, c, h, w = walk.size(node.input[0])
    b = get_integer(node, "blocksize", 1)
    _propagate_blocks(walk, node, [n, c, h // b, b, w // b, b], [0, 3, 5, 1, 2, 4])


def _propagate_blocks(walk: Walk, node: NodeProto, inner: list[int], order: list[int]) -> None:
    read = walk.get_axes(node, 0)
    for axis in (read[0], *read[2:]):
        walk.keep(axis, f"{describe_node(node)} splits this axis")
    blocks = reshape_axes(walk, read, inner, describe_node(node))
    turned = [blocks[i] for i in order]
    walk.axes[node.output[0]] = reshape_axes(
        walk, turned, walk.size(node.output[0]), describe_node(node)
    )


def propagate_expand(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Expand: new positions are free, and unify with later operands."""
    axes, size = walk.get_axes(node, 0), walk.size(node.output[0])
    walk.keep_shape_input(node, 1, axes)
    old = [*([np.zeros(1, np.intp)] * (len(size) - len(axes))), *axes]
    for axis, n in zip(old, size, strict=True):
        if len(axis) != n:
            walk.keep(axis, f"they are broadcast by {describe_node(node)}")
    walk.axes[node.output[0]] = [
        axis
        if len(axis) == n
        else walk.atoms.mark_nonzero(walk.atoms.fresh(n), describe_node(node))
        for axis, n in zip(old, size, strict=True)
    ]


def propagate_constant_of_shape(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through ConstantOfShape: equal entries, of which any may be removed."""
    walk.settle(node, 0)
    if walk.read_observed_integers(node.input[0]) is None:
        walk.axes[node.output[0]] = walk.make_kept_axes(walk.size(node.output[0]))
        return
    axes = [walk.atoms.fresh(n) for n in walk.size(node.output[0])]
    value = read_attribute(node, "value", None)
    empty = not isinstance(value, TensorProto) or not numpy_helper.to_array(value).any()
    walk.axes[node.output[0]] = axes if empty else walk.mark_nonzero(node, axes)


def propagate_resize(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Resize: axes whose length changes are kept."""
    axes, size = walk.get_axes(node, 0), walk.size(node.output[0])
    for position in range(1, len(node.input)):
        if position == _SIZES and node.input[position]:
            walk.keep_shape_input(node, position, axes)
        else:
            walk.settle(node, position)
    changed = [len(axis) != n for axis, n in zip(axes, size, strict=True)]
    for axis, other in zip(axes, changed, strict=True):
        if other:
            walk.keep(axis, f"{describe_node(node)} resizes this axis")
    walk.axes[node.output[0]] = [
        np.zeros(n, np.intp) if other else axis
        for axis, n, other in zip(axes, size, changed, strict=True)
    ]


def propagate_shape(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Shape, whose values are updated after a removal."""
    walk.axes[node.output[0]] = walk.make_kept_axes(walk.size(node.output[0]))
