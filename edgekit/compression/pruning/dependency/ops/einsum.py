"""Rule of Einsum: every letter is an axis."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from onnx import NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Product,
    Role,
    Walk,
    describe_node,
)
from edgekit.onnx_graph.einsum import parse_equation


def propagate_einsum(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Einsum: axes of one letter are unified.

    Letters that the output lacks are summed over.
    """
    found = parse_equation(node, [len(walk.size(name)) for name in node.input])
    if found is None or not _has_equal_lengths(walk, node, found[0]):
        walk.keep_node(node, f"pruning does not support this variant of {describe_node(node)}")
        return
    read, made = found
    factors = [_get_factor_axes(walk, node, place, read, made) for place in range(len(read))]
    meeting: dict[str, Axes] = defaultdict(list)
    fed: dict[str, Axes] = defaultdict(list)
    for name, term, axes in zip(node.input, read, factors, strict=True):
        for letter, axis in zip(term, axes, strict=True):
            meeting[letter].append(axis)
            if not walk.is_stored(name):
                fed[letter].append(axis)
    for letter, axes in meeting.items():
        for axis in axes[1:]:
            walk.atoms.same(axes[0], axis)
        if letter not in made:
            walk.keep_nonzero(node, walk.atoms.combine_product(fed[letter] or axes))
    _mark_kinds(walk, node, read, made, meeting)
    walk.axes[node.output[0]] = [walk.atoms.combine_product(meeting[letter]) for letter in made]
    whole = tuple(axes[0] for axes in meeting.values())
    walk.products.append(Product(node=node, constant=1, axes=whole))


def _has_equal_lengths(walk: Walk, node: NodeProto, read: list[str]) -> bool:
    """Return whether all axes of a letter have the same length."""
    lengths: dict[str, set[int]] = defaultdict(set)
    for name, term in zip(node.input, read, strict=True):
        size = walk.size(name)
        if len(size) != len(term):
            return False
        for letter, n in zip(term, size, strict=True):
            lengths[letter].add(n)
    return all(len(each) == 1 for each in lengths.values())


def _get_factor_axes(walk: Walk, node: NodeProto, place: int, read: list[str], made: str) -> Axes:
    name, term = node.input[place], read[place]
    if not walk.is_stored(name):
        return walk.get_axes(node, place)
    others = {c: (node.input[p], i) for p, t in enumerate(read) if p != place
              for i, c in enumerate(t)}  # fmt: skip
    roles: dict[int, Role] = {}
    values: dict[int, tuple[str, int]] = {}
    for i, letter in enumerate(term):
        if letter not in made:
            roles[i] = "reads"
            values[i] = others.get(letter, (name, i))
        elif letter not in others:
            roles[i] = "makes"
            values[i] = (node.output[0], made.index(letter))
        else:
            values[i] = (node.output[0], made.index(letter))
    return walk.read_stored_axes(node, place, roles, values)


def _mark_kinds(
    walk: Walk, node: NodeProto, read: list[str], made: str, meeting: dict[str, Axes]
) -> None:
    """Mark shared letters as heads, others as channels, if all factors are computed (attention)."""
    if len(read) < 2 or any(walk.is_stored(name) for name in node.input):
        return
    for letter, axes in meeting.items():
        shared = letter in made and all(letter in term for term in read)
        axis: Axis = np.abs(axes[0])
        walk.atoms.mark_kind(axis, "heads" if shared else "channels")
