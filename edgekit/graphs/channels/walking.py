"""A walk through a graph that gives every axis of every value its atoms."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.graphs.channels.atoms import KEPT, Atoms, Axis
from edgekit.graphs.channels.sizes import Seen
from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.onnx_file import inner_graphs

Role = Literal["makes", "reads", "along"]
Axes = list[Axis]
# Weights, and tensors of more entries, are cut once, whoever reads them; exporters store equal
# biases and scales once, which may get a copy per reader.
_SHARED_ENTRIES = 4096


@dataclass(frozen=True, kw_only=True)
class Use:
    """One axis of a stored tensor as one node reads it."""

    node: NodeProto
    position: int
    axis: int
    labels: Axis
    role: Role
    value: str
    value_axis: int


@dataclass(frozen=True, kw_only=True)
class Product:
    """Multiply-accumulates of a node: a constant times the lengths of axes."""

    node: NodeProto
    constant: int
    axes: tuple[Axis, ...]


@dataclass
class Walk:
    """The atoms of every axis, and what was learned on the way.

    Attributes:
        seen: shapes, and what integers were, on made-up inputs.
        counts: attributes that say how many there are of something, with the axis they count.
        picks: nodes that name positions of an axis by number, with that axis.
        means: nodes that divide by the length of axes, with these axes.
        variances: means of square distances from a mean, and that mean.
    """

    proto: ModelProto
    seen: Seen
    atoms: Atoms = field(default_factory=Atoms)
    axes: dict[str, Axes] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    counts: list[tuple[NodeProto, str, Axis]] = field(default_factory=list)
    picks: list[tuple[NodeProto, Axis]] = field(default_factory=list)
    means: list[tuple[NodeProto, Axes]] = field(default_factory=list)
    variances: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = GraphIndex(self.proto)
        self._shared: dict[str, Axes] = {}
        self._read: dict[tuple[str, int], Axes] = {}  # constants, by reader and input
        self._born = 0

    def run(self, rules: Mapping[str, Callable[[Walk, NodeProto], None]]) -> None:
        """Give atoms to all values; what no rule knows is kept as it is."""
        for value in self.proto.graph.input:
            if value.name not in self.index.initializers:
                atom = self.atoms.kept(f"goes with the input {value.name}")
                self.axes[value.name] = [np.full(n, atom, np.intp) for n in self.size(value.name)]
        for node in self.proto.graph.node:
            rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            rule = rules.get(f"{node.domain}:{node.op_type}") if rule is None else rule
            if rule is None or any(inner_graphs(node)) or not self._sizes_known(node):
                self.untouched(node, f"{called(node)} may look at all of it")
            else:
                rule(self, node)
        self.keep_all(self.index.inner_reads, "is read inside If, Loop or Scan")
        for value in self.proto.graph.output:
            self.keep_all([value.name], f"makes the output {value.name}")
        self._keep_stored()

    def _keep_stored(self) -> None:
        """Weights that an output or an inner graph is as well stay whole: a cut one is a copy."""
        for use in self.uses:
            name = use.node.input[use.position]
            if len(self.size(name)) < 2:
                continue
            if name in self.index.outputs:
                self.keep(use.labels, f"makes the output {name}")
            elif name in self.index.inner_reads:
                self.keep(use.labels, "is read inside If, Loop or Scan")

    def _sizes_known(self, node: NodeProto) -> bool:
        return all(
            n in self.seen.sizes or n in self.index.initializers for n in node.input if n
        ) and all(n in self.seen.sizes for n in node.output if n)

    # ------------------------------------------------------------ sizes and constants

    def size(self, name: str) -> tuple[int, ...]:
        """Shape of a value or stored tensor."""
        tensor = self.index.initializers.get(name)
        return tuple(tensor.dims) if tensor is not None else self.seen.sizes.get(name, ())

    def numbers(self, name: str) -> list[int] | None:
        """Integers that are stored, or the same on all inputs; ``None`` for others."""
        value = self.index.constant(name) if name else None
        value = self.seen.steady.get(name) if value is None else value
        return None if value is None else [int(v) for v in value.ravel()]

    def observed(self, name: str) -> list[int] | None:
        """Integers that are stored, or were there on the made-up inputs."""
        found = self.numbers(name)
        if found is None and name in self.seen.known:
            found = [int(v) for v in self.seen.known[name].ravel()]
        return found

    def scalar(self, name: str) -> float | None:
        """A stored number; ``None`` for anything else."""
        value = self.index.constant(name) if name else None
        return float(value.ravel()[0]) if value is not None and value.size == 1 else None

    def is_single(self, name: str) -> bool:
        """Whether a value may be float32, which numbers that are put into the graph are."""
        return bool(self.seen.kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT)

    # ------------------------------------------------------------ atoms

    @staticmethod
    def still(size: Sequence[int]) -> Axes:
        """Axes that stay as they are."""
        return [np.full(n, KEPT, np.intp) for n in size]

    def made(self, count: int) -> Axis:
        """Fresh atoms of an axis that a stored weight makes."""
        self._born += 1
        return self.atoms.fresh(count, self._born)

    def of(self, node: NodeProto, position: int) -> Axes:
        """The axes of a value that a node reads; those of a constant go along with its reader."""
        name = node.input[position]
        if name in self.axes:
            return self.axes[name]
        read = self._read.get((next(filter(None, node.output)), position))
        return self.stored(node, position) if read is None else read

    def stored(
        self,
        node: NodeProto,
        position: int,
        roles: Mapping[int, Role] | None = None,
        values: Mapping[int, tuple[str, int]] | None = None,
        given: Mapping[int, Axis] | None = None,
    ) -> Axes:
        """Axes of a stored tensor for one reader.

        Args:
            node: the reader.
            position: of the tensor in its inputs.
            roles: what axes do for the reader: ``along`` where nothing is said.
            values: the value and axis that have the same channels.
            given: axes that others have already.
        """
        name = node.input[position]
        size, roles, values, given = self.size(name), roles or {}, values or {}, given or {}
        axes = [
            given[a]
            if a in given
            else self.made(n)
            if roles.get(a) == "makes"
            else self.atoms.fresh(n)
            for a, n in enumerate(size)
        ]
        if math.prod(size) > _SHARED_ENTRIES or sum(n > 1 for n in size) > 1:
            for mine, others in zip(axes, self._shared.setdefault(name, axes), strict=True):
                self.atoms.same(mine, others)
        for a, labels in enumerate(axes):
            value, value_axis = values.get(a, (node.output[0], -1))
            self.uses.append(
                Use(
                    node=node,
                    position=position,
                    axis=a,
                    labels=labels,
                    role=roles.get(a, "along"),
                    value=value,
                    value_axis=value_axis,
                )
            )
        self._read[next(filter(None, node.output)), position] = axes
        return axes

    def is_stored(self, name: str) -> bool:
        """Whether a name is that of a constant."""
        return name in self.index.initializers

    def keep(self, axis: Axis, reason: str) -> None:
        """Positions that may not go."""
        self.atoms.keep(axis, reason)

    def settle(self, node: NodeProto, position: int) -> None:
        """An input that says what to do, such as a shape, stays as it is."""
        if node.input[position]:
            for axis in self.of(node, position):
                self.keep(axis, f"sets {called(node)}")

    def loudly(self, node: NodeProto, axes: Sequence[Axis]) -> Axes:
        """Axes of what a node makes where it does not make zero of zero."""
        return [self.atoms.loudly(axis, called(node)) for axis in axes]

    def shaped_by(self, node: NodeProto, position: int, axes: Sequence[Axis]) -> None:
        """An input that holds the shape of the output; where it is not seen, ``axes`` stay."""
        self.settle(node, position)
        if self.observed(node.input[position]) is None:
            for axis in axes:
                self.keep(axis, f"the shape that {called(node)} makes is not known")

    def adds_up(self, node: NodeProto, axis: Axis, but: Collection[int] = ()) -> None:
        """An axis that a node sums over: what goes has to be zero."""
        self.atoms.keep_loud(axis, called(node), but)

    def keep_all(self, names: Sequence[str] | set[str], reason: str) -> None:
        """Values that stay as they are."""
        for name in names:
            for axis in self.axes.get(name, ()):
                self.keep(axis, reason)

    def untouched(self, node: NodeProto, reason: str) -> None:
        """A node that reads and makes what it did."""
        for position, name in enumerate(node.input):
            if name:
                for axis in self.of(node, position):
                    self.keep(axis, reason)
        atom = self.atoms.kept(f"goes with what {called(node)} makes")
        for name in node.output:
            if name:
                self.axes[name] = [np.full(n, atom, np.intp) for n in self.size(name)]


def ints(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """An attribute that is a list of integers."""
    found = attribute(node, name, default)
    return list(found) if isinstance(found, list) else default


def integer(node: NodeProto, name: str, default: int) -> int:
    """An attribute that is an integer."""
    found = attribute(node, name, default)
    return found if isinstance(found, int) else default


def name_of(node: NodeProto) -> str:
    """The name of a node, or of the first value that it makes."""
    return str(node.name or next((name for name in node.output if name), ""))


def called(node: NodeProto) -> str:
    """A node as people know it."""
    return f"{node.op_type} {name_of(node)}"
