"""Detection and removal of residual branches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import permutations
from operator import or_

from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from edgekit.compression.pruning.dependency import FixedPart
from edgekit.onnx_graph.cost import count_node_macs
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import MULTIPLYING_OPS
from edgekit.onnx_graph.shape_inference import Shape, infer_shapes_at
from edgekit.onnx_graph.subgraph import collect_reads

_SUMS = {"Add", "Sum"}
# The outputs of these operators do not depend on the data of their inputs.
_SHAPE_ONLY = {"Shape", "Size"}
_BATCH, _FREE = 1, 64


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Residual branch: an operand of an Add or Sum whose other operand is the branch's own input.

    If several branches are added to the same value (attention beside a feed-forward layer), each of
    them counts. Nodes that they share are kept until the last of them is removed.

    Attributes:
        name: of the Add node, or of its output.
        add: output of the Add node.
        kept: the value that replaces the sum.
        nodes: first outputs of the nodes that are removed with the branch, in graph order; the last
            one is the Add.
        macs: multiply-accumulates of these nodes, as far as shapes are known; per sample if the
            shapes were inferred.
    """

    name: str
    add: str
    kept: str
    nodes: tuple[str, ...]
    macs: int


def list_branches(
    proto: ModelProto, shapes: Mapping[str, Shape] | None = None
) -> tuple[Branch, ...]:
    """Find every removable residual branch of the main graph, in graph order.

    Nested and consecutive branches are all listed: any of them can be removed together.

    Args:
        proto: float model, prepared (``rewrite.prepare``); not changed.
        shapes: of all values, if they are known; otherwise they are inferred.
    """
    return find_branches(proto, shapes)[0]


def find_branches(
    proto: ModelProto, shapes: Mapping[str, Shape] | None = None
) -> tuple[tuple[Branch, ...], tuple[FixedPart, ...]]:
    """Find the removable residual branches, and the sums that must be kept with the reason.

    Args:
        proto: float model, prepared (``rewrite.prepare``); not changed.
        shapes: of all values, if they are known; otherwise they are inferred.
    """
    finder = _BranchFinder(proto, _infer_shapes(proto) if shapes is None else shapes)
    found: list[Branch] = []
    fixed: list[FixedPart] = []
    for node in proto.graph.node:
        result = finder.classify_sum(node) if node.op_type in _SUMS else None
        if isinstance(result, Branch):
            found.append(result)
        elif result is not None:
            fixed.append(FixedPart(where=_get_name(node), reason=result))
    return tuple(found), tuple(fixed)


def remove_branches(proto: ModelProto, gone: Collection[Branch]) -> ModelProto:
    """Build a copy of the model without the given residual branches.

    Nodes and constants that only the branches use are removed as well. Inputs and outputs of the
    model keep their names.

    Args:
        proto: the model in which the branches were found; not changed.
        gone: the branches to remove.

    Raises:
        ValueError: a branch is of another model; the message names its sum.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    index = GraphIndex(made)
    instead = {branch.add: branch.kept for branch in gone}
    for branch in gone:
        if branch.add not in index.producer:
            raise ValueError(f"the model has no sum {branch.add}")
    for name in instead:
        _bypass(index, name, _resolve(instead, name))
    if instead:
        _drop_unread_nodes(index)
        _drop_stale_types(made)
        GraphIndex(made).drop_unread_constants()
    return made


def _resolve(instead: Mapping[str, str], name: str) -> str:
    while name in instead:
        name = instead[name]
    return name


def _bypass(index: GraphIndex, name: str, kept: str) -> None:
    """Replace a sum by one of its operands; an Identity keeps its name if it is needed."""
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
            read |= collect_reads(node)
    index.replace_nodes(kept[::-1])


def _drop_stale_types(proto: ModelProto) -> None:
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    infos = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _infer_shapes(proto: ModelProto) -> dict[str, Shape]:
    """Infer shapes for one sample; other free sizes are not 1, so that broadcasting shows."""
    dims: dict[str, int] = {}
    for value in proto.graph.input:
        for axis, name in enumerate(_iter_free_names(value)):
            dims.setdefault(name, _FREE if axis else _BATCH)
    return infer_shapes_at(proto, dims)


def _iter_free_names(value: ValueInfoProto) -> Iterator[str]:
    return (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _get_name(node: NodeProto) -> str:
    return str(node.name or node.output[0])


class _BranchFinder:
    """Ancestors (a bit set with one bit per value) and readers of every value of a graph."""

    def __init__(self, proto: ModelProto, shapes: Mapping[str, Shape]) -> None:
        self.index = GraphIndex(proto)
        self.shapes = shapes
        self.reads = {id(node): collect_reads(node) for node in proto.graph.node}
        self.readers: dict[str, list[NodeProto]] = {}
        self.bits: dict[str, int] = {}
        self.above: dict[str, int] = {}
        self.layers = 0
        for value in proto.graph.input:
            if value.name not in self.index.initializers:
                self._add_value(value.name, 0)
        for node in proto.graph.node:
            self._add_node(node)

    def _add_value(self, name: str, above: int) -> None:
        self.bits[name] = 1 << len(self.bits)
        self.above[name] = above | self.bits[name]

    def _add_node(self, node: NodeProto) -> None:
        above = 0
        for name in self.reads[id(node)]:
            self.readers.setdefault(name, []).append(node)
            if node.op_type not in _SHAPE_ONLY:
                above |= self.above.get(name, 0)
        for name in node.output:
            if name:
                self._add_value(name, above)
                self.layers |= self.bits[name] if node.op_type in MULTIPLYING_OPS else 0

    def classify_sum(self, adder: NodeProto) -> Branch | str | None:
        """Return the branch that a sum ends, the reason to keep it, or ``None`` if it ends none."""
        sides = list(adder.input)
        if len(sides) != 2 or not all(side in self.above for side in sides):
            return None
        for kept, branch in permutations(sides):
            sources = [each for each in self._find_addends(kept) if self._is_ancestor(each, branch)]
            if sources and kept != branch:
                nearest = max(sources, key=lambda each: self.above[each])
                return self._build_branch(adder, kept, branch, nearest)
        common = self.above[sides[0]] & self.above[sides[1]]
        if common and all(self.above[side] & self.layers for side in sides):
            return "neither operand of the sum is computed from the other"
        return None

    def _is_ancestor(self, name: str, other: str) -> bool:
        """Return whether ``other`` is computed from ``name``."""
        return bool(self.above[other] & self.bits[name])

    def _find_addends(self, name: str) -> set[str]:
        """Return a value and, if it is a sum, all its addends, recursively."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            each = waiting.pop()
            node = self.index.producer.get(each)
            if node is not None and node.op_type in _SUMS and each not in found:
                waiting.extend(read for read in node.input if read in self.above)
            found.add(each)
        return found

    def _find_parallel_ancestors(self, adder: NodeProto, branch: str) -> int:
        """Return the ancestors of the sum's other addends: parallel layers share nodes."""
        last = adder
        while (reader := self.index.only_reader(last.output[0])) and reader.op_type in _SUMS:
            last = reader
        others = (
            each
            for each in self._find_addends(last.output[0])
            if not self._is_ancestor(branch, each)
        )
        return reduce(or_, (self.above[each] for each in others), 0)

    def _build_branch(
        self, adder: NodeProto, kept: str, branch: str, source: str
    ) -> Branch | str | None:
        inside = self._find_values_between(source, branch)
        makers = [n for n in self.index.graph.node if not inside.isdisjoint(n.output)]
        if not any(node.op_type in MULTIPLYING_OPS for node in makers):
            return None  # an activation function composed of several operators
        total = adder.output[0]
        known = [self.shapes.get(name) for name in (kept, branch, total)]
        if None in known:
            return "the shapes of the operands are unknown"
        if not known[0] == known[1] == known[2]:
            return None  # the branch is broadcast, such as a mask
        beside = self._find_parallel_ancestors(adder, branch)
        leak = self._describe_outside_use(adder, inside, beside)
        if leak is not None:
            return leak
        nodes = self._find_unread_nodes(adder, kept)
        stays = [node for node in makers if id(node) not in nodes]
        if not all(self._has_output_in(node, beside) for node in stays):
            return "values inside the branch are also used outside it"
        if not any(id(node) in nodes and node.op_type in MULTIPLYING_OPS for node in makers):
            return "another operand of the same sum needs all its layers"
        gone = [node for node in self.index.graph.node if id(node) in nodes]
        return Branch(
            name=_get_name(adder),
            add=total,
            kept=kept,
            nodes=tuple(next(name for name in node.output if name) for node in gone),
            macs=sum(count_node_macs(node, self.shapes) or 0 for node in gone),
        )

    def _find_values_between(self, kept: str, branch: str) -> set[str]:
        """Return the values on the paths from ``kept`` to ``branch``, without ``kept``."""
        start, end = self.bits[kept], self.above[branch]
        return {
            name
            for name, above in self.above.items()
            if name != kept and above & start and self.bits[name] & end
        }

    def _has_output_in(self, node: NodeProto, values: int) -> bool:
        return any(self.bits[name] & values for name in node.output if name)

    def _describe_outside_use(self, adder: NodeProto, inside: set[str], beside: int) -> str | None:
        """Describe the first use of an inner value outside the branch; ``None`` without one."""
        for name in self.above:
            if name not in inside:
                continue
            if name in self.index.outputs:
                return f"{name} inside the branch is an output of the model"
            for node in self.readers.get(name, ()):
                if node is adder or node.op_type in _SHAPE_ONLY:
                    continue
                if inside.isdisjoint(node.output) and not self._has_output_in(node, beside):
                    return f"{name} inside the branch is also read by {_get_name(node)}"
        return None

    def _find_unread_nodes(self, adder: NodeProto, kept: str) -> set[int]:
        """Return the ids of the nodes that nothing reads once the sum is removed."""
        gone = {id(adder)}
        for node in reversed(self.index.graph.node):
            outputs = [name for name in node.output if name in self.readers]
            if outputs and kept not in node.output and self._is_unread(node, gone):
                gone.add(id(node))
        return gone

    def _is_unread(self, node: NodeProto, gone: set[int]) -> bool:
        read = (reader for name in node.output for reader in self.readers.get(name, ()))
        left = self.index.outputs | self.index.inner_reads
        return left.isdisjoint(node.output) and all(id(reader) in gone for reader in read)
