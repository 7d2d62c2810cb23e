"""Dependency groups, and the lengths of axes after groups are removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import Product, Role, Walk

Kind = Literal["channels", "heads", "neurons"]
Positions = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class TensorPart:
    """Positions of a group in a stored tensor.

    Attributes:
        node: reads the tensor, as its input ``position``.
        position: index of the tensor among the inputs of the node.
        tensor: its name.
        axis: of the tensor.
        indices: positions along that axis.
        role: ``makes`` (output channels of a weight), ``reads`` (its input channels), ``along`` (a
            bias, statistics, a scale).
        value: the value of the graph whose ``value_axis`` has these channels: an input of the node
            for ``reads``, otherwise its output.
        value_axis: axis of that value.
    """

    node: NodeProto
    position: int
    tensor: str
    axis: int
    indices: Positions
    role: Role
    value: str
    value_axis: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """Dependency group: one channel, head or neuron, with all positions that go with it."""

    number: int
    places: tuple[TensorPart, ...]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Dependency groups along one axis, in the order of the axis.

    ``width`` is the number of positions that a group has along the axis of the first layer, such as
    the size of a head.
    """

    name: str
    kind: Kind
    groups: tuple[int, ...]
    width: int


@dataclass(frozen=True, kw_only=True)
class FixedPart:
    """Part of a graph that cannot be removed, with the reason."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Dependency groups of a graph.

    Attributes:
        proto: the graph in which they were found; not changed.
        groups: by their number.
        families: each group is in exactly one.
        fixed: layers whose channels cannot be removed.
        walk: the atoms of every axis.
        numbers: group number by atom.
    """

    proto: ModelProto
    groups: tuple[Group, ...]
    families: tuple[Family, ...]
    fixed: tuple[FixedPart, ...]
    walk: Walk
    numbers: Mapping[int, int] = field(repr=False)  # atom -> group
    _members: dict[bytes, NDArray[np.intp]] = field(default_factory=dict, repr=False)

    def members(self, axis: Axis) -> NDArray[np.intp]:
        """Return the groups of each position of an axis, [n, k], padded with -1."""
        labels = np.abs(axis)
        mark = labels.tobytes()
        if mark not in self._members:
            distinct, place = np.unique(labels, return_inverse=True)
            alive, numbers = self.walk.atoms.find_free_roots, self.numbers
            lists = [[numbers[r] for r in alive(a) if r in numbers] for a in distinct.tolist()]
            most = max((len(each) for each in lists), default=0)
            padded = [each + [-1] * (most - len(each)) for each in lists]
            self._members[mark] = np.array(padded, np.intp).reshape(len(lists), most)[place]
        return self._members[mark]

    def find_kept(self, axis: Axis, gone: Collection[int]) -> NDArray[np.bool_]:
        """Return for each position of an axis whether it is kept if groups are removed."""
        return self.find_kept_by_flags(axis, self.make_flags(gone))

    def find_kept_by_flags(self, axis: Axis, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for each position of an axis whether it is kept, from the flags of the groups."""
        stays: NDArray[np.bool_] = np.logical_not(flags[self.members(axis)].any(axis=1))
        return stays

    def make_flags(self, gone: Collection[int]) -> NDArray[np.bool_]:
        """Return for each group whether it is removed; the last entry, for no group, is False."""
        flags = np.zeros(len(self.groups) + 1, np.bool_)
        flags[list(gone)] = True
        return flags

    @cached_property
    def lengths(self) -> AxisLengths:
        """Return the lengths of all axes of values and stored tensors that groups can shorten."""
        every = [axis for axes in self.walk.axes.values() for axis in axes]
        return AxisLengths(self.members, [*every, *(use.labels for use in self.walk.uses)])

    @cached_property
    def costs(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Return for each product a constant and the entries of the lengths to multiply it by."""
        return tuple(self._compute_cost(product) for product in self.walk.products)

    def _compute_cost(self, product: Product) -> tuple[int, tuple[int, ...]]:
        constant, numbers = product.constant, []
        for axis in product.axes:
            number = self.lengths.number(axis)
            if number is None:
                constant *= len(axis)
            else:
                numbers.append(number)
        return constant, tuple(numbers)


class AxisLengths:
    """Lengths of all axes after a removal, computed at once.

    Axes that lose the same positions share one entry.
    """

    def __init__(self, members: Callable[[Axis], Positions], axes: Iterable[Axis]) -> None:
        self._numbers: dict[tuple[bytes, int], int] = {}
        self.axes: list[Axis] = []
        self._members = members
        found: list[Positions] = []
        for axis in axes:
            lost = members(axis)
            mark = _make_key(lost)
            if lost.size and mark not in self._numbers:
                self._numbers[mark] = len(found)
                self.axes.append(axis)
                found.append(lost)
        sizes = [len(each) for each in found]
        self.starts = np.concatenate([np.zeros(1, np.intp), np.cumsum(sizes, dtype=np.intp)])
        self.place, self.group = _find_pairs(found, self.starts)

    def number(self, axis: Axis) -> int | None:
        """Return the entry of an axis; ``None`` if no group can shorten it."""
        lost = self._members(axis)
        return self._numbers.get(_make_key(lost)) if lost.size else None

    def count_kept(self, flags: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the number of kept positions of each entry."""
        stays = np.ones(int(self.starts[-1]), np.intp)
        stays[self.place[flags[self.group]]] = 0
        if not len(stays):
            return stays
        return np.add.reduceat(stays, self.starts[:-1])

    def start_removal(self) -> GroupRemoval:
        """Start a removal of groups one by one."""
        return GroupRemoval(self)

    def find_decisive_groups(self) -> Positions:
        """Return the groups whose removal alone would empty an axis."""
        axis = np.searchsorted(self.starts, self.place, side="right") - 1
        pairs, counts = np.unique(np.stack([axis, self.group]), axis=1, return_counts=True)
        sizes = np.diff(self.starts)
        return np.unique(pairs[1][counts == sizes[pairs[0]]])


class GroupRemoval:
    """Removal of groups one by one, as long as no axis becomes empty."""

    def __init__(self, lengths: AxisLengths) -> None:
        self._stays = np.ones(int(lengths.starts[-1]), np.bool_)
        self._left = np.diff(lengths.starts)
        self._axis = np.repeat(np.arange(len(self._left)), self._left)
        order = np.argsort(lengths.group, kind="stable")
        self._places = lengths.place[order]
        self._groups = lengths.group[order]

    def take(self, number: int) -> bool:
        """Remove a group unless an axis would become empty; return whether it was removed."""
        first, last = np.searchsorted(self._groups, [number, number + 1])
        places = self._places[first:last]
        places = places[self._stays[places]]
        axes, lost = np.unique(self._axis[places], return_counts=True)
        if (self._left[axes] <= lost).any():
            return False
        self._stays[places] = False
        self._left[axes] -= lost
        return True


def _make_key(lost: Positions) -> tuple[bytes, int]:
    return lost.tobytes(), len(lost)


def _find_pairs(found: Sequence[Positions], starts: Positions) -> tuple[Positions, Positions]:
    """Return the positions, counted through all axes, that belong to groups, and these groups."""
    places, groups = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for lost, start in zip(found, starts, strict=False):
        place, column = np.nonzero(lost >= 0)
        places.append(place + start)
        groups.append(lost[place, column])
    return np.concatenate(places), np.concatenate(groups)
