"""Groups: what is left free once every operator has said what must go together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.rules import RULES
from edgekit.graphs.channels.sizes import look
from edgekit.graphs.channels.walking import Role, Use, Walk

Kind = Literal["channels", "heads", "neurons"]
Positions = NDArray[np.intp]
# Operators whose channels people call neurons.
_PRODUCTS = {"MatMul", "Gemm"}


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
            lists = [
                [self.numbers[r] for r in self.walk.atoms.alive(a) if r in self.numbers]
                for a in distinct.tolist()
            ]
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
    def axes(self) -> tuple[Axis, ...]:
        """Every axis of a value or stored tensor that some group has a part in."""
        every = [a for axes in self.walk.axes.values() for a in axes]
        every += [use.labels for use in self.walk.uses]
        distinct = {a.tobytes(): a for a in every if len(a)}
        return tuple(a for a in distinct.values() if self.members(a).size)


def find_channels(
    proto: ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Channels:
    """Find what can go together.

    Args:
        proto: float, prepared (``rewrite.prepare``) and cleaned; not changed.
        shapes: of the inputs, where a sample's are known.

    Raises:
        PassRefused: the model runs on no made-up input.
    """
    walk = Walk(proto=proto, seen=look(proto, shapes))
    walk.run(RULES)
    return _Finder(walk).channels()


class _Finder:
    """Sorts the places of a walk by the free atoms that they go with."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.atoms = walk.atoms
        self.places: dict[int, list[Place]] = defaultdict(list)

    def channels(self) -> Channels:
        for use in self.walk.uses:
            self._place(use)
        makers = [root for root, places in self.places.items() if _makes(places)]
        families = self._families(makers)
        free = sorted(root for family in families for root in family)
        numbers = {root: number for number, root in enumerate(free)}
        groups = tuple(
            Group(number=n, places=tuple(self.places[root])) for root, n in numbers.items()
        )
        return Channels(
            proto=self.walk.proto,
            groups=groups,
            families=tuple(self._family(roots, numbers) for roots in families),
            fixed=tuple(self._fixed(numbers)),
            walk=self.walk,
            numbers=numbers,
        )

    def _place(self, use: Use) -> None:
        indices: dict[int, list[int]] = defaultdict(list)
        for position, atom in enumerate(use.labels.tolist()):
            for root in self.atoms.alive(atom):
                indices[root].append(position)
        for root, positions in indices.items():
            self.places[root].append(
                Place(
                    node=use.node,
                    position=use.position,
                    tensor=use.node.input[use.position],
                    axis=use.axis,
                    indices=np.array(positions, np.intp),
                    role=use.role,
                    value=use.value,
                    value_axis=use.value_axis,
                )
            )

    def _families(self, roots: Sequence[int]) -> list[list[int]]:
        """Roots that share an axis of a maker; a family of one cannot go."""
        wanted = set(roots)
        leader: dict[int, int] = {}

        def lead(of: int) -> int:
            while leader.setdefault(of, of) != of:
                of = leader[of]
            return of

        home: dict[int, int] = {}
        for atom in range(1, len(self.atoms)):
            born = self.atoms.born[atom]
            root = self.atoms.root(atom)
            if born < 0 or root not in wanted:
                continue
            leader[lead(born)] = lead(home.setdefault(root, born))
        gathered: dict[int, list[int]] = defaultdict(list)
        for root in roots:
            if root in home:
                gathered[lead(home[root])].append(root)
        return [each for each in gathered.values() if len(each) > 1]

    def _family(self, roots: Sequence[int], numbers: Mapping[int, int]) -> Family:
        first = next(p for p in self.places[roots[0]] if p.role == "makes")
        return Family(
            name=first.node.name or first.node.output[0],
            kind=self._kind(roots),
            groups=tuple(sorted(numbers[root] for root in roots)),
            width=len(first.indices),
        )

    def _kind(self, roots: Sequence[int]) -> Kind:
        marks = {self.atoms.kinds.get(root) for root in roots}
        if "heads" in marks:
            return "heads"
        makers = {p.node.op_type for p in self.places[roots[0]] if p.role == "makes"}
        return "neurons" if makers <= _PRODUCTS and "channels" not in marks else "channels"

    def _fixed(self, numbers: Mapping[int, int]) -> Iterable[Fixed]:
        """Makers of channels none of which can go."""
        for use in self.walk.uses:
            if use.role != "makes" or not len(use.labels):
                continue
            free = any(r in numbers for a in use.labels.tolist() for r in self.atoms.alive(a))
            if free:
                continue
            reasons = Counter(self.atoms.reason(a) for a in use.labels.tolist())
            reason = reasons.most_common(1)[0][0] or "all its channels go together"
            yield Fixed(where=use.node.name or use.node.output[0], reason=reason)


def _makes(places: Sequence[Place]) -> bool:
    return any(place.role == "makes" for place in places)
