"""Residual layers that can be left out as a whole, and a graph without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper

from edgekit.graphs.channels.sizes import seen
from edgekit.graphs.cost import node_macs
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.upstream import downstream, reads_of, upstream

Shapes = Mapping[str, tuple[int, ...]]
_SUMS = {"Add", "Sum"}
# Without one of _LAYERS a sum is part of a function, such as x + 0.04 x³ in GELU.
_SIZES = {"Shape", "Size"}
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"}


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What is added to a value that would go on without it.

    Attributes:
        name: of the sum.
        add: what the sum makes.
        kept: the value that goes on.
        nodes: by the first value that each makes, those that nothing else needs, in order.
        macs: multiply-accumulates of these nodes, for the sizes that were looked at.
    """

    name: str
    add: str
    kept: str
    nodes: tuple[str, ...]
    macs: int


def branches(proto: ModelProto, shapes: Shapes | None = None) -> tuple[Branch, ...]:
    """Every residual layer of the main graph, in its order; one may hold others.

    A sum of two values of one shape, one of which is computed from the other by layers that
    nothing else looks into: blocks of residual networks, inverted residuals, attention and
    feed-forward layers of transformers.

    Args:
        proto: prepared (``rewrite.prepare``); not changed.
        shapes: of the inputs, where a sample's are known.

    Raises:
        PassRefused: the model runs on no made-up input.
    """
    sizes, _ = seen(proto, shapes)
    stored = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    finder = _Finder(GraphIndex(proto), stored | sizes)
    found = (finder.branch(node) for node in proto.graph.node if node.op_type in _SUMS)
    return tuple(branch for branch in found if branch is not None)


class _Finder:
    """Looks at sums one by one."""

    def __init__(self, index: GraphIndex, sizes: Shapes) -> None:
        self.index = index
        self.sizes = sizes

    def branch(self, add: NodeProto) -> Branch | None:
        """What a sum adds to one of its inputs, if it can be left out."""
        if add.domain not in ("", "ai.onnx") or len(set(add.input)) != 2 or len(add.input) != 2:
            return None
        first, second = add.input
        for kept, inner in ((first, second), (second, first)):
            if self._goes_on(kept, add) and self._is_apart(kept, inner, add):
                gone = self._needed_by(add, kept)
                return Branch(
                    name=add.name or add.output[0],
                    add=add.output[0],
                    kept=kept,
                    nodes=tuple(node.output[0] for node in gone),
                    macs=sum(node_macs(node, self.sizes) or 0 for node in gone),
                )
        return None

    def _goes_on(self, kept: str, add: NodeProto) -> bool:
        size = self.sizes.get(kept)
        return (
            kept not in self.index.initializers
            and size is not None
            and size == self.sizes.get(add.output[0])
        )

    def _is_apart(self, kept: str, inner: str, add: NodeProto) -> bool:
        """Whether ``inner`` is made of ``kept`` by layers whose values nothing else reads."""
        index = self.index
        if inner not in index.producer or kept not in upstream(index, [inner]):
            return False
        # A mask that is made to the size of ``kept`` says nothing of what is in it.
        sizes = [n for n in index.readers[kept] if n.op_type in _SIZES]
        between = downstream(index, kept, but=sizes) & upstream(index, [inner])
        between.discard(kept)
        nodes = [node for node in index.graph.node if not between.isdisjoint(node.output)]
        mine = {id(node) for node in (*nodes, add)}
        made = {name for node in nodes for name in node.output if name}
        return (
            any(node.op_type in _LAYERS for node in nodes)
            and made.isdisjoint(index.outputs | index.inner_reads)
            and all(id(reader) in mine for name in made for reader in index.readers.get(name, []))
        )

    def _needed_by(self, add: NodeProto, kept: str) -> list[NodeProto]:
        """The sum and all that only it needs, in the graph's order."""
        index = self.index
        outputs = {name for name in index.outputs if name != add.output[0]}
        needed = outputs | {kept}
        for node in reversed(index.graph.node):
            if node is not add and not needed.isdisjoint(node.output):
                needed |= reads_of(node)
        return [n for n in index.graph.node if n is add or needed.isdisjoint(n.output)]


def without(proto: ModelProto, left_out: Collection[Branch]) -> ModelProto:
    """A new model in which the values that branches were added to go on alone.

    Nodes and constants that nothing reads any more are gone; inputs and outputs keep their names.

    Args:
        proto: the model that the branches were found in; not changed.
        left_out: any of them.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    del made.graph.value_info[:]
    index = GraphIndex(made)
    onward = {branch.add: branch.kept for branch in left_out}
    index.replace_nodes(_redirected(index, onward))
    index = GraphIndex(made)
    needed = upstream(index, index.outputs)
    index.replace_nodes([n for n in index.graph.node if not needed.isdisjoint(n.output)])
    GraphIndex(made).drop_unread_constants()
    return made


def _redirected(index: GraphIndex, onward: Mapping[str, str]) -> Sequence[NodeProto]:
    """The nodes without the sums, whose readers read what goes on."""
    nodes = []
    for node in index.graph.node:
        name = next((name for name in node.output if name in onward), None)
        if name is None:
            for place, read in enumerate(node.input):
                node.input[place] = _end(read, onward)
            nodes.append(node)
        elif name in index.outputs or name in index.inner_reads:
            nodes.append(helper.make_node("Identity", [_end(name, onward)], [name], node.name))
    return nodes


def _end(name: str, onward: Mapping[str, str]) -> str:
    while name in onward:
        name = onward[name]
    return name
