"""Residual layers: branches of a sum that can be left out as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import permutations
from operator import or_

from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from edgekit.graphs.channels import Fixed
from edgekit.graphs.cost import node_macs
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.shapes import Shape, shapes_of
from edgekit.graphs.upstream import reads_of

_SUMS = {"Add", "Sum"}
# A branch without one of these is no layer.
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"}
# What these make tells nothing of the values that they read.
_SHAPE_ONLY = {"Shape", "Size"}
_BATCH, _FREE = 2, 64


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One side of a sum whose other side is what it is made of, in the same shape.

    Of several that are added to the same value (attention beside a feed-forward layer), each is
    one; what they share stays until the last of them goes.

    Attributes:
        name: of the node that adds, or of what it makes.
        add: what that node makes.
        kept: the value that goes on in its place.
        nodes: the first value that each node makes which goes with the branch, in the graph's
            order; the sum itself is the last.
        macs: multiply-accumulates of these nodes, as far as shapes are known.
    """

    name: str
    add: str
    kept: str
    nodes: tuple[str, ...]
    macs: int


def branches(proto: ModelProto, shapes: Mapping[str, Shape] | None = None) -> tuple[Branch, ...]:
    """Every residual layer of the main graph that can be left out, in its order.

    Nested branches and those of one chain are all listed: any of them can be left out together.

    Args:
        proto: float, prepared (``rewrite.prepare``); not changed.
        shapes: of all values, where they are known; else they are inferred.
    """
    return find_branches(proto, shapes)[0]


def find_branches(
    proto: ModelProto, shapes: Mapping[str, Shape] | None = None
) -> tuple[tuple[Branch, ...], tuple[Fixed, ...]]:
    """The same, and the sums of the like that have to stay, with the reason."""
    finder = _Finder(proto, _inferred(proto) if shapes is None else shapes)
    found: list[Branch] = []
    fixed: list[Fixed] = []
    for node in proto.graph.node:
        result = finder.look_at(node) if node.op_type in _SUMS else None
        if isinstance(result, Branch):
            found.append(result)
        elif result is not None:
            fixed.append(Fixed(where=_name(node), reason=result))
    return tuple(found), tuple(fixed)


def without(proto: ModelProto, gone: Collection[Branch]) -> ModelProto:
    """A new model that lacks these branches, and the nodes and constants that only they used.

    Inputs and outputs of the model keep their names.

    Args:
        proto: the model that they were found in; not changed.
        gone: some of its branches.

    Raises:
        ValueError: a branch is of another model; names it.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    index = GraphIndex(made)
    instead = {branch.add: branch.kept for branch in gone}
    for branch in gone:
        if branch.add not in index.producer:
            raise ValueError(f"no sum makes {branch.add}")
    for name in instead:
        _bypass(index, name, _through(instead, name))
    if instead:
        _drop_unread_nodes(index)
        _drop_unmade_types(made)
        GraphIndex(made).drop_unread_constants()
    return made


def _through(instead: Mapping[str, str], name: str) -> str:
    while name in instead:
        name = instead[name]
    return name


def _bypass(index: GraphIndex, name: str, kept: str) -> None:
    """Let what reads a sum read another value; where its name must live on, it is that value's."""
    for node in index.readers[name]:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = kept
    adder = index.producer[name]
    if name in index.outputs or name in index.inner_reads:
        adder.CopyFrom(helper.make_node("Identity", [kept], [name], name=adder.name))


def _drop_unread_nodes(index: GraphIndex) -> None:
    read = set(index.outputs)
    kept: list[NodeProto] = []
    for node in reversed(index.graph.node):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read |= reads_of(node)
    index.replace_nodes(kept[::-1])


def _drop_unmade_types(proto: ModelProto) -> None:
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    infos = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _inferred(proto: ModelProto) -> dict[str, Shape]:
    """Shapes of all values, free dimensions being of sizes at which nothing is repeated."""
    dims: dict[str, int] = {}
    for value in proto.graph.input:
        for axis, name in enumerate(_free(value)):
            dims.setdefault(name, _FREE if axis else _BATCH)
    return shapes_of(proto, dims)


def _free(value: ValueInfoProto) -> Iterator[str]:
    return (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _name(node: NodeProto) -> str:
    return str(node.name or node.output[0])


class _Finder:
    """What each value of a graph is computed from, as bits of one number per value."""

    def __init__(self, proto: ModelProto, shapes: Mapping[str, Shape]) -> None:
        self.index = GraphIndex(proto)
        self.shapes = shapes
        self.reads = {id(node): reads_of(node) for node in proto.graph.node}
        self.readers: dict[str, list[NodeProto]] = {}
        self.bits: dict[str, int] = {}
        self.above: dict[str, int] = {}
        self.layers = 0
        for value in proto.graph.input:
            if value.name not in self.index.initializers:
                self._born(value.name, 0)
        for node in proto.graph.node:
            self._follow(node)

    def _born(self, name: str, above: int) -> None:
        self.bits[name] = 1 << len(self.bits)
        self.above[name] = above | self.bits[name]

    def _follow(self, node: NodeProto) -> None:
        above = 0
        for name in self.reads[id(node)]:
            self.readers.setdefault(name, []).append(node)
            if node.op_type not in _SHAPE_ONLY:
                above |= self.above.get(name, 0)
        for name in node.output:
            if name:
                self._born(name, above)
                self.layers |= self.bits[name] if node.op_type in _LAYERS else 0

    def look_at(self, adder: NodeProto) -> Branch | str | None:
        """The branch that a sum ends, or why it has to stay; ``None`` where there is none."""
        sides = list(adder.input)
        if len(sides) != 2 or not all(side in self.above for side in sides):
            return None
        for kept, branch in permutations(sides):
            sources = [each for each in self._addends(kept) if self._makes(each, branch)]
            if sources and kept != branch:
                nearest = max(sources, key=lambda each: self.above[each])
                return self._branch(adder, kept, branch, nearest)
        common = self.above[sides[0]] & self.above[sides[1]]
        if common and all(self.above[side] & self.layers for side in sides):
            return "neither side of the sum is what the other is made of"
        return None

    def _makes(self, name: str, other: str) -> bool:
        """Whether a value is computed from another."""
        return bool(self.above[other] & self.bits[name])

    def _addends(self, name: str) -> set[str]:
        """A value and, where it is a sum, all that it is the sum of."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            each = waiting.pop()
            node = self.index.producer.get(each)
            if node is not None and node.op_type in _SUMS and each not in found:
                waiting.extend(read for read in node.input if read in self.above)
            found.add(each)
        return found

    def _beside(self, adder: NodeProto, branch: str) -> int:
        """What the other addends of the same sum are made of; parallel layers share a beginning."""
        last = adder
        while (reader := self.index.only_reader(last.output[0])) and reader.op_type in _SUMS:
            last = reader
        others = (each for each in self._addends(last.output[0]) if not self._makes(branch, each))
        return reduce(or_, (self.above[each] for each in others), 0)

    def _branch(self, adder: NodeProto, kept: str, branch: str, source: str) -> Branch | str | None:
        inside = self._between(source, branch)
        makers = [n for n in self.index.graph.node if not inside.isdisjoint(n.output)]
        if not any(node.op_type in _LAYERS for node in makers):
            return None  # an activation function spelled out
        total = adder.output[0]
        known = [self.shapes.get(name) for name in (kept, branch, total)]
        if None in known:
            return "the shapes of the sum's sides are not known"
        if not known[0] == known[1] == known[2]:
            return None  # something repeated, such as a mask
        beside = self._beside(adder, branch)
        leak = self._leak(adder, inside, beside)
        if leak is not None:
            return leak
        nodes = self._only_for(adder, kept)
        stays = [node for node in makers if id(node) not in nodes]
        if not all(self._is_in(node, beside) for node in stays):
            return "what is made inside it is read elsewhere as well"
        if not any(id(node) in nodes and node.op_type in _LAYERS for node in makers):
            return "another addend of the same sum needs all its layers"
        gone = [node for node in self.index.graph.node if id(node) in nodes]
        return Branch(
            name=_name(adder),
            add=total,
            kept=kept,
            nodes=tuple(next(name for name in node.output if name) for node in gone),
            macs=sum(node_macs(node, self.shapes) or 0 for node in gone),
        )

    def _between(self, kept: str, branch: str) -> set[str]:
        """What is computed from the one value on the way to the other."""
        start, end = self.bits[kept], self.above[branch]
        return {
            name
            for name, above in self.above.items()
            if name != kept and above & start and self.bits[name] & end
        }

    def _is_in(self, node: NodeProto, values: int) -> bool:
        return any(self.bits[name] & values for name in node.output if name)

    def _leak(self, adder: NodeProto, inside: set[str], beside: int) -> str | None:
        """Who else reads a value inside a branch, in words."""
        for name in self.above:
            if name not in inside:
                continue
            if name in self.index.outputs:
                return f"{name} inside it is an output of the model"
            for node in self.readers.get(name, ()):
                if node is adder or node.op_type in _SHAPE_ONLY:
                    continue
                if inside.isdisjoint(node.output) and not self._is_in(node, beside):
                    return f"{name} inside it is read by {_name(node)} as well"
        return None

    def _only_for(self, adder: NodeProto, kept: str) -> set[int]:
        """The nodes that nothing reads once the sum is gone, by identity."""
        gone = {id(adder)}
        for node in reversed(self.index.graph.node):
            outputs = [name for name in node.output if name in self.readers]
            if outputs and kept not in node.output and self._unread(node, gone):
                gone.add(id(node))
        return gone

    def _unread(self, node: NodeProto, gone: set[int]) -> bool:
        read = (reader for name in node.output for reader in self.readers.get(name, ()))
        left = self.index.outputs | self.index.inner_reads
        return left.isdisjoint(node.output) and all(id(reader) in gone for reader in read)
