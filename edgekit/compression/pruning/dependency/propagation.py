"""Propagation of atoms through a graph, from inputs and weights to every value."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.compression.pruning.dependency.equivalence import KEPT, Atoms, Axis
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import iter_inner_graphs
from edgekit.onnx_graph.operators import is_standard
from edgekit.onnx_graph.shape_tracing import ObservedValues

Role = Literal["makes", "reads", "along"]
Axes = list[Axis]
# Weights, and tensors of more entries, are cut in the same way for all readers. Exporters store
# equal biases and scales once, and these may get a copy per reader.
_SHARED_ENTRIES = 4096


@dataclass(frozen=True, kw_only=True)
class Use:
    """One axis of a stored tensor, as one node reads it."""

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
    """Atoms of every axis of a graph, and the attributes and nodes to update after a removal.

    Attributes:
        seen: shapes and integers observed on synthetic inputs.
        counts: attributes that hold the length of an axis, with that axis.
        picks: nodes that name positions of an axis by number, with that axis.
        means: nodes that divide by the length of axes, with these axes.
        variances: means of squared distances from a mean, and that mean.
    """

    proto: ModelProto
    seen: ObservedValues
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
        self._read: dict[tuple[str, int], Axes] = {}  # axes of constants, by reader and input
        self._born = 0

    def run(self, rules: Mapping[str, Callable[[Walk, NodeProto], None]]) -> None:
        """Propagate atoms to all values; operators without a rule keep their inputs and outputs."""
        for value in self.proto.graph.input:
            if value.name not in self.index.initializers:
                atom = self.atoms.make_kept_atom(f"they are tied to the input {value.name}")
                self.axes[value.name] = [np.full(n, atom, np.intp) for n in self.size(value.name)]
        for node in self.proto.graph.node:
            rule = rules.get(node.op_type) if is_standard(node) else None
            rule = rules.get(f"{node.domain}:{node.op_type}") if rule is None else rule
            if rule is None or any(iter_inner_graphs(node)) or not self._has_known_sizes(node):
                self.keep_node(node, f"pruning does not support {describe_node(node)}")
            else:
                rule(self, node)
        self.keep_all(self.index.inner_reads, "they are read inside If, Loop or Scan")
        for value in self.proto.graph.output:
            self.keep_all([value.name], f"they are tied to the output {value.name}")
        self._keep_stored()

    def _keep_stored(self) -> None:
        """Keep weights that outputs or inner graphs read as well: a cut weight would be a copy."""
        for use in self.uses:
            name = use.node.input[use.position]
            if len(self.size(name)) < 2:
                continue
            if name in self.index.outputs:
                self.keep(use.labels, f"they are tied to the output {name}")
            elif name in self.index.inner_reads:
                self.keep(use.labels, "they are read inside If, Loop or Scan")

    def _has_known_sizes(self, node: NodeProto) -> bool:
        return all(
            n in self.seen.sizes or n in self.index.initializers for n in node.input if n
        ) and all(n in self.seen.sizes for n in node.output if n)

    # ------------------------------------------------------------ sizes and constants

    def size(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value or stored tensor."""
        tensor = self.index.initializers.get(name)
        return tuple(tensor.dims) if tensor is not None else self.seen.sizes.get(name, ())

    def numbers(self, name: str) -> list[int] | None:
        """Return integers that are stored or equal on all inputs; ``None`` for other values."""
        value = self.index.constant(name) if name else None
        value = self.seen.constant_integers.get(name) if value is None else value
        return None if value is None else [int(v) for v in value.ravel()]

    def read_observed_integers(self, name: str) -> list[int] | None:
        """Return integers that are stored or were observed on synthetic inputs."""
        found = self.numbers(name)
        if found is None and name in self.seen.integers:
            found = [int(v) for v in self.seen.integers[name].ravel()]
        return found

    def scalar(self, name: str) -> float | None:
        """Return a stored number; ``None`` for anything else."""
        value = self.index.constant(name) if name else None
        return float(value.ravel()[0]) if value is not None and value.size == 1 else None

    def is_float32(self, name: str) -> bool:
        """Return whether a value may be float32, the type of numbers inserted into the graph."""
        return bool(self.seen.element_types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT)

    # ------------------------------------------------------------ atoms

    @staticmethod
    def make_kept_axes(size: Sequence[int]) -> Axes:
        """Return axes of the given lengths that are kept."""
        return [np.full(n, KEPT, np.intp) for n in size]

    def make_output_axis(self, count: int) -> Axis:
        """Return fresh atoms for an output axis of a stored weight."""
        self._born += 1
        return self.atoms.fresh(count, self._born)

    def get_axes(self, node: NodeProto, position: int) -> Axes:
        """Return the axes of an input of a node; a constant has axes of its own for each reader."""
        name = node.input[position]
        if name in self.axes:
            return self.axes[name]
        read = self._read.get((next(filter(None, node.output)), position))
        return self.read_stored_axes(node, position) if read is None else read

    def read_stored_axes(
        self,
        node: NodeProto,
        position: int,
        roles: Mapping[int, Role] | None = None,
        values: Mapping[int, tuple[str, int]] | None = None,
        given: Mapping[int, Axis] | None = None,
    ) -> Axes:
        """Return the axes of a stored tensor for one reader, and record their use.

        Args:
            node: the reader.
            position: index of the tensor among the reader's inputs.
            roles: role of axes for the reader, by axis; ``along`` by default.
            values: the value and its axis that have the same channels, by axis.
            given: atoms that are known already, by axis.
        """
        name = node.input[position]
        size, roles, values, given = self.size(name), roles or {}, values or {}, given or {}
        axes = [
            given[a]
            if a in given
            else self.make_output_axis(n)
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
        """Return whether a name is that of a constant."""
        return name in self.index.initializers

    def keep(self, axis: Axis, reason: str) -> None:
        """Keep all positions of an axis."""
        self.atoms.keep(axis, reason)

    def settle(self, node: NodeProto, position: int) -> None:
        """Keep all axes of an input that configures a node, such as a shape."""
        if node.input[position]:
            for axis in self.get_axes(node, position):
                self.keep(axis, f"they are a parameter of {describe_node(node)}")

    def mark_nonzero(self, node: NodeProto, axes: Sequence[Axis]) -> Axes:
        """Mark the axes of a node's output as nonzero: it does not map zero to zero."""
        return [self.atoms.mark_nonzero(axis, describe_node(node)) for axis in axes]

    def keep_shape_input(self, node: NodeProto, position: int, axes: Sequence[Axis]) -> None:
        """Keep an input that holds the output shape; if it was not observed, keep ``axes`` too."""
        self.settle(node, position)
        if self.read_observed_integers(node.input[position]) is None:
            for axis in axes:
                self.keep(axis, f"the output shape of {describe_node(node)} is unknown")

    def keep_nonzero(self, node: NodeProto, axis: Axis, but: Collection[int] = ()) -> None:
        """Keep the nonzero positions of an axis that a node sums over."""
        self.atoms.keep_nonzero(axis, describe_node(node), but)

    def keep_all(self, names: Sequence[str] | set[str], reason: str) -> None:
        """Keep all axes of the named values."""
        for name in names:
            for axis in self.axes.get(name, ()):
                self.keep(axis, reason)

    def keep_node(self, node: NodeProto, reason: str) -> None:
        """Keep all axes of a node's inputs and outputs."""
        for position, name in enumerate(node.input):
            if name:
                for axis in self.get_axes(node, position):
                    self.keep(axis, reason)
        atom = self.atoms.make_kept_atom(f"they are tied to the output of {describe_node(node)}")
        for name in node.output:
            if name:
                self.axes[name] = [np.full(n, atom, np.intp) for n in self.size(name)]


def get_ints(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """Return an attribute that is a list of integers, else the default."""
    found = read_attribute(node, name, default)
    return list(found) if isinstance(found, list) else default


def get_integer(node: NodeProto, name: str, default: int) -> int:
    """Return an attribute that is an integer, else the default."""
    found = read_attribute(node, name, default)
    return found if isinstance(found, int) else default


def get_node_name(node: NodeProto) -> str:
    """Return the name of a node, or of its first output."""
    return str(node.name or next((name for name in node.output if name), ""))


def describe_node(node: NodeProto) -> str:
    """Return operator and name of a node, for messages."""
    return f"{node.op_type} {get_node_name(node)}"
