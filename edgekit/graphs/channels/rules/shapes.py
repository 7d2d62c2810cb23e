"""Rules of operators that change the shape or the layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.walking import Axes, Walk, called, integer, ints
from edgekit.graphs.index import attribute

# Index of the input of Resize that holds the output shape.
_SIZES = 3


def reshape(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Reshape, Flatten, Squeeze or Unsqueeze by the shapes around it."""
    for position in range(1, len(node.input)):
        if node.op_type == "Reshape":
            walk.shaped_by(node, position, walk.of(node, 0))
        else:
            walk.settle(node, position)
    size = walk.size(node.output[0])
    walk.axes[node.output[0]] = laid_out(walk, walk.of(node, 0), size, called(node))


def laid_out(walk: Walk, axes: Axes, size: Sequence[int], who: str) -> Axes:
    """Return the axes of the same entries, in the same order, in another shape."""
    made: Axes = walk.still(size)
    if 0 in size:
        for axis in axes:
            walk.keep(axis, f"{who} makes nothing of it")
        return made
    for before, after in _segments([len(a) for a in axes], size):
        factors = _refined([len(axes[i]) for i in before], [size[i] for i in after])
        if factors is None:
            for i in before:
                walk.keep(axes[i], f"{who} mixes positions of this axis")
            continue
        rest = iter(factors)
        parts: Axes = []
        for i in before:
            parts += _split(walk, axes[i], _taken(rest, len(axes[i])))
        whole = iter(parts)
        for i in after:
            made[i] = walk.atoms.product(_gathered(whole, size[i]))
    return made


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
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


def _refined(before: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """Return sizes of which the axes of both shapes are products; ``None`` if there are none."""
    cuts = {math.prod(sizes[:k]) for sizes in (before, after) for k in range(len(sizes) + 1)}
    ordered = sorted(cuts)
    if any(b % a for a, b in pairwise(ordered)):
        return None
    return [b // a for a, b in pairwise(ordered)]


def _taken(factors: Iterator[int], length: int) -> list[int]:
    taken: list[int] = []
    while math.prod(taken) < length:
        taken.append(next(factors))
    return taken


def _gathered(parts: Iterator[Axis], length: int) -> list[Axis]:
    found: list[Axis] = []
    while math.prod(len(p) for p in found) < length:
        found.append(next(parts))
    return found


def _split(walk: Walk, axis: Axis, sizes: list[int]) -> Axes:
    """Return the axes of which an axis is the product."""
    if len(sizes) == 1:
        return [axis]
    parts = _depends_on(walk, axis, sizes)
    if parts is None:
        parts = [walk.made(n) for n in sizes]
        walk.atoms.same(axis, walk.atoms.product(parts))
    return [-np.abs(part) for part in parts] if walk.atoms.is_loud(axis) else parts


def _depends_on(walk: Walk, axis: Axis, sizes: list[int]) -> Axes | None:
    """Return the parts if all but one are kept; ``None`` if more than one has free atoms."""
    still = walk.still(sizes)
    numbers: dict[frozenset[int], int] = {frozenset(): 0}
    alive = [frozenset(walk.atoms.alive(label)) for label in axis.tolist()]
    roots = np.array([numbers.setdefault(each, len(numbers)) for each in alive]).reshape(sizes)
    if not roots.any():
        return still
    for k in range(len(sizes)):
        first = tuple(slice(None) if i == k else slice(0, 1) for i in range(len(sizes)))
        if (roots == roots[first]).all():
            still[k] = axis.reshape(sizes)[first].ravel()
            return still
    return None


def transpose(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Transpose."""
    axes = walk.of(node, 0)
    order = ints(node, "perm", list(range(len(axes)))[::-1])
    walk.axes[node.output[0]] = [axes[i] for i in order]


def depth_to_space(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through DepthToSpace: [N, C, H, W] to [N, C / b², H b, W b]."""
    n, c, h, w = walk.size(node.input[0])
    b = integer(node, "blocksize", 1)
    by_column = attribute(node, "mode", b"DCR") == b"CRD"
    inner = [n, c // b**2, b, b, h, w] if by_column else [n, b, b, c // b**2, h, w]
    order = [0, 1, 4, 2, 5, 3] if by_column else [0, 3, 4, 1, 5, 2]
    _in_blocks(walk, node, inner, order)


def space_to_depth(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through SpaceToDepth: [N, C, H, W] to [N, C b², H / b, W / b]."""
    n, c, h, w = walk.size(node.input[0])
    b = integer(node, "blocksize", 1)
    _in_blocks(walk, node, [n, c, h // b, b, w // b, b], [0, 3, 5, 1, 2, 4])


def _in_blocks(walk: Walk, node: NodeProto, inner: list[int], order: list[int]) -> None:
    read = walk.of(node, 0)
    for axis in (read[0], *read[2:]):
        walk.keep(axis, f"{called(node)} splits this axis")
    blocks = laid_out(walk, read, inner, called(node))
    turned = [blocks[i] for i in order]
    walk.axes[node.output[0]] = laid_out(walk, turned, walk.size(node.output[0]), called(node))


def expand(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Expand: new positions are free, and unify with later operands."""
    axes, size = walk.of(node, 0), walk.size(node.output[0])
    walk.shaped_by(node, 1, axes)
    old = [*([np.zeros(1, np.intp)] * (len(size) - len(axes))), *axes]
    for axis, n in zip(old, size, strict=True):
        if len(axis) != n:
            walk.keep(axis, f"is broadcast by {called(node)}")
    walk.axes[node.output[0]] = [
        axis if len(axis) == n else walk.atoms.loudly(walk.atoms.fresh(n), called(node))
        for axis, n in zip(old, size, strict=True)
    ]


def filled(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through ConstantOfShape: equal entries, of which any may be removed."""
    walk.settle(node, 0)
    if walk.observed(node.input[0]) is None:
        walk.axes[node.output[0]] = walk.still(walk.size(node.output[0]))
        return
    axes = [walk.atoms.fresh(n) for n in walk.size(node.output[0])]
    value = attribute(node, "value", None)
    empty = not isinstance(value, TensorProto) or not numpy_helper.to_array(value).any()
    walk.axes[node.output[0]] = axes if empty else walk.loudly(node, axes)


def resize(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Resize: axes whose length changes are kept."""
    axes, size = walk.of(node, 0), walk.size(node.output[0])
    for position in range(1, len(node.input)):
        if position == _SIZES and node.input[position]:
            walk.shaped_by(node, position, axes)
        else:
            walk.settle(node, position)
    changed = [len(axis) != n for axis, n in zip(axes, size, strict=True)]
    for axis, other in zip(axes, changed, strict=True):
        if other:
            walk.keep(axis, f"{called(node)} changes its length")
    walk.axes[node.output[0]] = [
        np.zeros(n, np.intp) if other else axis
        for axis, n, other in zip(axes, size, changed, strict=True)
    ]


def shape_of(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Shape, whose values are updated after a removal."""
    walk.axes[node.output[0]] = walk.still(walk.size(node.output[0]))
