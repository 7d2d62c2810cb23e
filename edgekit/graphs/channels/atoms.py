"""What must go together, position by position: equalities between the places of many axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.intp]

# The atom of every position that never goes.
KEPT = 0


class Atoms:
    """Atoms stand for "this position goes"; a position of an axis has one.

    Two positions that must go together get the same atom. A position of an axis that is a product
    of two (heads times head size) goes when either of its parts does: its atom is *bound* to
    theirs. Atoms that may not go are kept, with the reason.
    """

    def __init__(self) -> None:
        self._parent = [KEPT]
        self._parts: dict[int, tuple[int, ...]] = {}
        self._reasons: dict[int, str] = {KEPT: ""}
        self.born: list[int] = [-1]  # which axis of makers an atom was made for
        self.kinds: dict[int, str] = {}

    def fresh(self, count: int, born: int = -1) -> Axis:
        """New atoms, free of each other."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        self.born.extend([born] * count)
        return np.arange(first, first + count)

    def product(self, axes: Sequence[Axis]) -> Axis:
        """The axis whose positions are the tuples of those of others, the last one fastest."""
        live = [bool(axis.any()) for axis in axes]
        if not any(live):
            return np.zeros(math.prod(len(a) for a in axes), np.intp)
        spread = [
            np.broadcast_to(
                axis.reshape([-1 if i == k else 1 for i in range(len(axes))]), _sizes(axes)
            )
            for k, axis in enumerate(axes)
        ]
        if sum(live) == 1:
            return spread[live.index(True)].ravel().copy()
        whole = self.fresh(math.prod(_sizes(axes)))
        parts = np.stack([each.ravel() for each in spread], axis=1)
        for atom, of in zip(whole.tolist(), parts.tolist(), strict=True):
            self._parts[atom] = tuple(of)
        return whole

    def root(self, atom: int) -> int:
        """The atom that stands for all that are the same."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def alive(self, atom: int) -> tuple[int, ...]:
        """The free roots that an atom stands for: it goes when any of them does."""
        root = self.root(atom)
        if root in self._reasons:
            return ()
        if root not in self._parts:
            return (root,)
        return tuple(dict.fromkeys(r for part in self._parts[root] for r in self.alive(part)))

    def reason(self, atom: int) -> str:
        """Why an atom is kept; empty where it is not, or for no reason that needs telling."""
        root = self.root(atom)
        if root in self._reasons:
            return self._reasons[root]
        return next((self.reason(p) for p in self._parts.get(root, ()) if self.reason(p)), "")

    def keep(self, axis: Axis, reason: str) -> None:
        """Positions that may not go."""
        for atom in axis.tolist():
            for root in self.alive(atom):
                self._reasons[root] = reason

    def same(self, one: Axis, other: Axis) -> None:
        """Positions of two axes that go together, one by one."""
        if one is other or np.array_equal(one, other):
            return
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self._join(a, b)

    def _join(self, a: int, b: int) -> None:
        if self.root(a) == self.root(b):
            return
        left, right = self.alive(a), self.alive(b)
        if set(left) == set(right):
            return
        if not left or not right:
            reason = self.reason(b if left else a)
            for root in (*left, *right):
                self._reasons[root] = reason
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

    def _bind(self, atom: int, parts: tuple[int, ...]) -> None:
        """A free root becomes another one, or the product of others."""
        if len(parts) == 1:
            self._parent[atom] = parts[0]
            if atom in self.kinds:
                self.kinds.setdefault(parts[0], self.kinds[atom])
        else:
            self._parts[atom] = parts

    def mark(self, axis: Axis, kind: str) -> None:
        """Say what the free atoms of an axis are."""
        for atom in axis.tolist():
            for root in self.alive(atom):
                self.kinds.setdefault(root, kind)

    def __len__(self) -> int:
        return len(self._parent)


def _sizes(axes: Sequence[Axis]) -> tuple[int, ...]:
    return tuple(len(axis) for axis in axes)
