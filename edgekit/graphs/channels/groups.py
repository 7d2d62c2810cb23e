"""Groups: the smallest things that can go, and how long axes are when they went."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.walking import Product, Role, Walk

Kind = Literal["channels", "heads", "neurons"]
Positions = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A part that a group has in a stored tensor.

    Attributes:
        node: reads the tensor, as its input ``position``.
        tensor: its name.
        axis: of the tensor.
        indices: positions along that axis.
        role: ``makes`` (output channels of a weight), ``reads`` (its input channels), ``along``
            (a bias, statistics, a scale).
        value: the value of the graph whose ``value_axis`` has these channels: for ``reads`` what
            the node reads, else what it makes.
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
    """The smallest thing that can go: one channel, head or neuron, wherever it occurs."""

    number: int
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Groups of one axis, in its order.

    ``width`` is how many positions of the first layer's axis a group takes, such as the size of a
    head.
    """

    name: str
    kind: Kind
    groups: tuple[int, ...]
    width: int


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What cannot be touched, in words."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Channels:
    """What of a graph can go.

    Attributes:
        proto: the graph that it was found in; not changed.
        groups: by their number.
        families: each group is in exactly one.
        fixed: layers whose channels cannot go.
        walk: what was learned about every axis.
    """

    proto: ModelProto
    groups: tuple[Group, ...]
    families: tuple[Family, ...]
    fixed: tuple[Fixed, ...]
    walk: Walk
    numbers: Mapping[int, int] = field(repr=False)  # atom -> group
    _members: dict[bytes, NDArray[np.intp]] = field(default_factory=dict, repr=False)

    def members(self, axis: Axis) -> NDArray[np.intp]:
        """The groups that each position of an axis goes with, [n, k], -1 where there is none."""
        labels = np.abs(axis)
        mark = labels.tobytes()
        if mark not in self._members:
            distinct, place = np.unique(labels, return_inverse=True)
            alive, numbers = self.walk.atoms.alive, self.numbers
            lists = [[numbers[r] for r in alive(a) if r in numbers] for a in distinct.tolist()]
            most = max((len(each) for each in lists), default=0)
            padded = [each + [-1] * (most - len(each)) for each in lists]
            self._members[mark] = np.array(padded, np.intp).reshape(len(lists), most)[place]
        return self._members[mark]

    def kept(self, axis: Axis, gone: Collection[int]) -> NDArray[np.bool_]:
        """Which positions of an axis stay when groups go."""
        return self.stays(axis, self.flags(gone))

    def stays(self, axis: Axis, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The same, for ``flags``."""
        stays: NDArray[np.bool_] = np.logical_not(flags[self.members(axis)].any(axis=1))
        return stays

    def flags(self, gone: Collection[int]) -> NDArray[np.bool_]:
        """Whether each group goes; a last one, for none, does not."""
        flags = np.zeros(len(self.groups) + 1, np.bool_)
        flags[list(gone)] = True
        return flags

    @cached_property
    def lengths(self) -> Lengths:
        """Of all axes of values and stored tensors that some group has a part in."""
        every = [axis for axes in self.walk.axes.values() for axis in axes]
        return Lengths(self.members, [*every, *(use.labels for use in self.walk.uses)])

    @cached_property
    def costs(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Multiply-accumulates of each product: a constant times lengths, by number."""
        return tuple(self._cost(product) for product in self.walk.products)

    def _cost(self, product: Product) -> tuple[int, tuple[int, ...]]:
        constant, numbers = product.constant, []
        for axis in product.axes:
            number = self.lengths.number(axis)
            if number is None:
                constant *= len(axis)
            else:
                numbers.append(number)
        return constant, tuple(numbers)


class Lengths:
    """How many positions axes have left, counted for all of them in one go.

    Axes that lose the same positions count as one.
    """

    def __init__(self, members: Callable[[Axis], Positions], axes: Iterable[Axis]) -> None:
        self._numbers: dict[tuple[bytes, int], int] = {}
        self.axes: list[Axis] = []
        self._members = members
        found: list[Positions] = []
        for axis in axes:
            lost = members(axis)
            mark = _mark(lost)
            if lost.size and mark not in self._numbers:
                self._numbers[mark] = len(found)
                self.axes.append(axis)
                found.append(lost)
        sizes = [len(each) for each in found]
        self.starts = np.concatenate([np.zeros(1, np.intp), np.cumsum(sizes, dtype=np.intp)])
        self.place, self.group = _pairs(found, self.starts)

    def number(self, axis: Axis) -> int | None:
        """Which of the axes counted one is; ``None`` where nothing of it can go."""
        lost = self._members(axis)
        return self._numbers.get(_mark(lost)) if lost.size else None

    def left(self, flags: NDArray[np.bool_]) -> NDArray[np.intp]:
        """How many positions of each axis stay."""
        stays = np.ones(int(self.starts[-1]), np.intp)
        stays[self.place[flags[self.group]]] = 0
        if not len(stays):
            return stays
        return np.add.reduceat(stays, self.starts[:-1])

    def taking(self) -> Taking:
        """To take groups out one by one."""
        return Taking(self)

    def decisive(self) -> Positions:
        """Groups each of which alone leaves nothing of some axis."""
        axis = np.searchsorted(self.starts, self.place, side="right") - 1
        pairs, counts = np.unique(np.stack([axis, self.group]), axis=1, return_counts=True)
        sizes = np.diff(self.starts)
        return np.unique(pairs[1][counts == sizes[pairs[0]]])


class Taking:
    """Groups that go one by one, as long as each axis has a position left."""

    def __init__(self, lengths: Lengths) -> None:
        self._stays = np.ones(int(lengths.starts[-1]), np.bool_)
        self._left = np.diff(lengths.starts)
        self._axis = np.repeat(np.arange(len(self._left)), self._left)
        order = np.argsort(lengths.group, kind="stable")
        self._places = lengths.place[order]
        self._groups = lengths.group[order]

    def take(self, number: int) -> bool:
        """Take a group out; whether it could go."""
        first, last = np.searchsorted(self._groups, [number, number + 1])
        places = self._places[first:last]
        places = places[self._stays[places]]
        axes, lost = np.unique(self._axis[places], return_counts=True)
        if (self._left[axes] <= lost).any():
            return False
        self._stays[places] = False
        self._left[axes] -= lost
        return True


def _mark(lost: Positions) -> tuple[bytes, int]:
    return lost.tobytes(), len(lost)


def _pairs(found: Sequence[Positions], starts: Positions) -> tuple[Positions, Positions]:
    """Positions, counted through all axes, and the groups that they go with."""
    places, groups = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for lost, start in zip(found, starts, strict=False):
        place, column = np.nonzero(lost >= 0)
        places.append(place + start)
        groups.append(lost[place, column])
    return np.concatenate(places), np.concatenate(groups)
