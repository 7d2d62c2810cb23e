"""Union-find over the positions of all axes: positions with one atom are removed together."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.intp]
Roots = tuple[int, ...]
_Chosen = Callable[[Sequence[frozenset[int]]], frozenset[int]]

# Atom of every position that is never removed.
KEPT = 0


class Atoms:
    """Atoms of positions: each position of an axis has a label, which is an atom or minus an atom.

    Two positions that must be removed together get the same atom. A position of an axis that is a
    product of two (heads times head size) is removed when either of its parts is: its atom is
    *bound* to theirs. Atoms that cannot be removed are kept, with the reason.

    If the producers of a position are zero, the position is zero after most operators. After some,
    such as Sigmoid, it may not be: then its label is *nonzero*, which is written as minus the atom.
    One part of a product may be nonzero alone.
    """

    def __init__(self) -> None:
        self._parent = [KEPT]
        self._parts: dict[int, Roots] = {}
        self._found: dict[int, Roots] = {}  # free roots of products, valid until something changes
        self._loud: set[int] = set()  # atoms of products with a nonzero part
        self._reasons: dict[int, str] = {KEPT: ""}
        self._culprits: dict[int, str] = {}
        self._kept: dict[str, int] = {"": KEPT}
        self.born: list[int] = [-1]  # number of the output axis that an atom was made for
        self.kinds: dict[int, str] = {}

    # ------------------------------------------------------------ labels

    def fresh(self, count: int, born: int = -1) -> Axis:
        """Return new atoms, independent of each other."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        self.born.extend([born] * count)
        return np.arange(first, first + count)

    def product(self, axes: Sequence[Axis]) -> Axis:
        """Return the product axis: its positions are tuples of positions, the last fastest."""
        live = [self._is_live(axis) for axis in axes]
        if not any(live):
            label = next((int(axis[0]) for axis in axes if axis.any()), KEPT)
            return np.full(math.prod(_get_sizes(axes)), label, np.intp)
        spread = [
            np.broadcast_to(
                axis.reshape([-1 if i == k else 1 for i in range(len(axes))]), _get_sizes(axes)
            )
            for k, axis in enumerate(axes)
        ]
        if sum(live) == 1:
            return spread[live.index(True)].ravel().copy()
        whole = self.fresh(math.prod(_get_sizes(axes)))
        parts = np.stack([each.ravel() for each in spread], axis=1)
        for atom, of in zip(whole.tolist(), parts.tolist(), strict=True):
            self._set_parts(atom, tuple(of))
        return whole

    def _is_live(self, axis: Axis) -> bool:
        return bool(axis.any()) and any(
            self.find_free_roots(label) for label in np.unique(axis).tolist()
        )

    def make_kept_atom(self, reason: str) -> int:
        """Return the atom of positions that are never removed, for the given reason."""
        if reason not in self._kept:
            self._kept[reason] = int(self.fresh(1)[0])
            self._reasons[self._kept[reason]] = reason
        return self._kept[reason]

    def _set_parts(self, atom: int, parts: Roots) -> None:
        self._parts[atom] = parts
        if any(part < 0 or part in self._loud for part in parts):
            self._loud.add(atom)

    def mark_nonzero(self, axis: Axis, culprit: str) -> Axis:
        """Return the labels marked as nonzero, and record the operator that causes it."""
        if not self._is_live(axis):
            return axis
        for label in np.unique(axis).tolist():
            for root in self.find_free_roots(label):
                self._culprits[root] = culprit
        return -np.abs(axis)

    def combine_sum(self, axes: Sequence[Axis]) -> Axis:
        """Return the labels of a sum, zero only if all operands are; the atoms do not change."""
        return self._combine(axes, lambda sets: frozenset().union(*sets))

    def combine_product(self, axes: Sequence[Axis]) -> Axis:
        """Return the labels of a product, zero if any operand is; the atoms do not change."""
        return self._combine(axes, lambda sets: sets[0].intersection(*sets[1:]))

    def _combine(self, axes: Sequence[Axis], of: _Chosen) -> Axis:
        if not any(self.has_nonzero(axis) for axis in axes):
            return axes[0]
        return np.array(
            [
                self._combine_labels(labels, of)
                for labels in zip(*(a.tolist() for a in axes), strict=True)
            ]
        )

    def _combine_labels(self, labels: Sequence[int], of: _Chosen) -> int:
        sets = [frozenset(self.find_nonzero_roots(label)) for label in labels]
        wanted = of(sets)
        for label, loud in zip(labels, sets, strict=True):
            if loud == wanted:
                return label
        atom = int(self.fresh(1)[0])
        roots = self.find_free_roots(labels[0])
        self._set_parts(atom, tuple(-root if root in wanted else root for root in roots))
        return atom

    # ------------------------------------------------------------ what labels stand for

    def root(self, label: int) -> int:
        """Return the representative of an atom's equivalence class."""
        parent, atom = self._parent, abs(label)
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def find_free_roots(self, label: int) -> Roots:
        """Return the free roots of a label: its position is removed if any of them is."""
        root = self.root(label)
        if root in self._reasons:
            return ()
        if root not in self._parts:
            return (root,)
        if root not in self._found:
            parts = self._parts[root]
            found = dict.fromkeys(r for part in parts for r in self.find_free_roots(part))
            self._found[root] = tuple(found)
        return self._found[root]

    def find_nonzero_roots(self, label: int) -> Roots:
        """Return the free roots of a label for which its position is nonzero."""
        if label < 0:
            return self.find_free_roots(label)
        root = self.root(label)
        if root not in self._loud or root in self._reasons:
            return ()
        return tuple(
            dict.fromkeys(r for part in self._parts[root] for r in self.find_nonzero_roots(part))
        )

    def has_nonzero(self, axis: Axis) -> bool:
        """Return whether some position of an axis is nonzero."""
        if len(axis) and int(axis.min()) < 0:
            return True
        return bool(self._loud) and not self._loud.isdisjoint(axis.tolist())

    def reason(self, label: int) -> str:
        """Return the reason why an atom is kept; empty if it is not, or needs no explanation."""
        root = self.root(label)
        if root in self._reasons:
            return self._reasons[root]
        return next((self.reason(p) for p in self._parts.get(root, ()) if self.reason(p)), "")

    # ------------------------------------------------------------ what operators say

    def keep(self, axis: Axis, reason: str) -> None:
        """Keep all positions of an axis."""
        for label in np.unique(axis).tolist():
            for root in self.find_free_roots(label):
                self._reasons[root] = reason
        self._found.clear()

    def keep_nonzero(self, axis: Axis, who: str, but: Collection[int] = ()) -> None:
        """Keep the nonzero positions of an axis that ``who`` adds up, except the roots ``but``."""
        if not self.has_nonzero(axis):
            return
        for label in np.unique(axis).tolist():
            for root in self.find_nonzero_roots(label):
                if root not in but:
                    culprit = self._culprits.get(root, "an operator")
                    self._reasons[root] = f"{culprit} maps zeros to other values, which {who} sums"
        self._found.clear()

    def same(self, one: Axis, other: Axis) -> None:
        """Unify the atoms of two axes position by position."""
        left, right = np.abs(one), np.abs(other)
        differ = left != right
        for a, b in set(zip(left[differ].tolist(), right[differ].tolist(), strict=True)):
            self._join(a, b)

    def _join(self, a: int, b: int) -> None:
        if self.root(a) == self.root(b):
            return
        left, right = self.find_free_roots(a), self.find_free_roots(b)
        if set(left) == set(right):
            return
        if not left or not right:
            reason = self.reason(b if left else a)
            for root in (*left, *right):
                self._reasons[root] = reason
            self._found.clear()
        elif len(left) == 1 and left[0] not in right:
            self._bind(left[0], right)
        elif len(right) == 1 and right[0] not in left:
            self._bind(right[0], left)
        elif len(left) == len(right):
            for x, y in zip(left, right, strict=True):
                self._join(x, y)
        else:
            first, *others = (*left, *right)
            for each in others:
                self._join(first, each)

    def _bind(self, atom: int, parts: Roots) -> None:
        """Replace a free root by another one, or bind it to the product of others."""
        self._found.clear()
        if len(parts) == 1:
            self._parent[atom] = parts[0]
        else:
            self._parts[atom] = parts
        for part in parts if len(parts) == 1 else ():
            if atom in self.kinds:
                self.kinds.setdefault(part, self.kinds[atom])
            if atom in self._culprits:
                self._culprits.setdefault(part, self._culprits[atom])

    def mark_kind(self, axis: Axis, kind: str) -> None:
        """Record the kind (channels or heads) of the free atoms of an axis."""
        for label in np.unique(axis).tolist():
            for root in self.find_free_roots(label):
                self.kinds.setdefault(root, kind)

    def __len__(self) -> int:
        return len(self._parent)


def _get_sizes(axes: Sequence[Axis]) -> tuple[int, ...]:
    return tuple(len(axis) for axis in axes)
