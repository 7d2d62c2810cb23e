"""Weights that a graph puts together from stored tensors (gates sliced apart and joined anew)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.onnx_file import MAX_BYTES, all_graphs, inner_graphs

# Smaller results are shapes, bounds and counters rather than weights.
_LEAST_ENTRIES = 64
# A result may be so much larger than what it is made of (Expand and Tile are left to the runtime).
_MAX_GROWTH = 1.05
# What is computed goes through one message.
_MOST_BYTES = MAX_BYTES // 4
# Operators that move, join or scale entries; what they make of constants is a constant.
_FOLDABLE = {
    "Add", "Cast", "Concat", "Div", "Flatten", "Gather", "Identity", "Mul", "Neg", "Pad", "Reshape",
    "Shape", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
_FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}

Arrays = dict[str, NDArray[np.generic]]


def fold_weights(proto: ModelProto) -> None:
    """Make constants of the main graph of weights that are computed from stored ones, in place.

    Exporters cut the gates of an LSTM apart and join them in another order, also inside the
    branches of an If. Equal results are stored once. A weight that is also read as it is stored
    (a tied embedding, say) stays computed, and so do integers: they stand for weights of few bits.
    """
    main = GraphIndex(proto)
    folding = _Folding(main)
    folding.fold(main, {})
    if folding.stored:
        folding.drop_unread_nodes()
        GraphIndex(proto).drop_unread_constants()


class _Folding:
    """Results by content, shared by all graphs of a model."""

    def __init__(self, main: GraphIndex) -> None:
        self.main = main
        self.stored: dict[bytes, str] = {}
        self.tied = _read_otherwise(main.proto.graph)

    def fold(self, index: GraphIndex, around: Arrays) -> None:
        """Fold the weights that the nodes of a graph and of the graphs inside it compute.

        Args:
            index: the graph.
            around: small constants of the graphs around it, by name.
        """
        constants = around | _own_constants(index)
        chain = list(_constant_nodes(index, constants))
        wanted = _read_by_others(index, chain)
        if wanted:
            sources = _sources(index, chain, constants)
            for name, value in _computed(index.proto, chain, sources, sorted(wanted)).items():
                if self._is_weight(name, value, chain, sources):
                    self._store(index, name, value)
                elif value.size < _LEAST_ENTRIES:
                    constants[name] = value
        for node in list(index.graph.node):
            for graph in inner_graphs(node):
                inner = GraphIndex(index.proto, inner=graph, outer=index)
                hidden = {v.name for v in graph.input} | inner.producer.keys()
                self.fold(inner, {k: v for k, v in constants.items() if k not in hidden})

    def _is_weight(
        self, name: str, value: NDArray[np.generic], chain: list[NodeProto], sources: Arrays
    ) -> bool:
        if value.dtype not in _FLOATS or value.size < _LEAST_ENTRIES:
            return False
        made_of = _made_of(name, chain) & sources.keys()
        large = [k for k in made_of if sources[k].size >= _LEAST_ENTRIES]
        if any(sources[k].dtype not in _FLOATS or k in self.tied for k in large):
            return False
        return value.nbytes <= _MAX_GROWTH * sum(sources[k].nbytes for k in large)

    def _store(self, index: GraphIndex, name: str, value: NDArray[np.generic]) -> None:
        if name in index.outputs:
            return
        key = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).digest()
        if key not in self.stored:
            self.stored[key] = self.main.add_constant(name, value)
        for graph in all_graphs(index.graph):
            for node in graph.node:
                for place, read in enumerate(node.input):
                    if read == name:
                        node.input[place] = self.stored[key]

    def drop_unread_nodes(self) -> None:
        """Remove what only made weights that are stored now."""
        for graph in reversed(list(all_graphs(self.main.proto.graph))):
            _drop_unread(graph)


def _drop_unread(graph: GraphProto) -> None:
    """Remove nodes that could be folded and whose results nothing reads, from the end backwards."""
    read = {v.name for v in graph.output}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        known = node.op_type in _FOLDABLE and node.domain in ("", "ai.onnx")
        if known and read.isdisjoint(node.output):
            del graph.node[place]
            continue
        read.update(node.input)
        for inner in inner_graphs(node):
            read |= {n for g in all_graphs(inner) for each in g.node for n in each.input}
            read |= {v.name for g in all_graphs(inner) for v in g.output}


def _constant_nodes(index: GraphIndex, constants: Arrays) -> Iterator[NodeProto]:
    """The nodes of a graph that only move, join or scale constants, in its order."""
    known = set(constants)
    for node in index.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _FOLDABLE:
            continue
        if all(not name or name in index.initializers or name in known for name in node.input):
            known.update(node.output)
            yield node


def _own_constants(index: GraphIndex) -> Arrays:
    """What the Constant nodes of a graph hold, and the initialisers of an inner graph."""
    found: Arrays = {}
    if index is not index.main:
        found |= {t.name: numpy_helper.to_array(t) for t in index.graph.initializer}
    for node in index.graph.node:
        value = attribute(node, "value", None) if node.op_type == "Constant" else None
        if isinstance(value, TensorProto):
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _read_by_others(index: GraphIndex, chain: list[NodeProto]) -> set[str]:
    """The results of constant nodes that other nodes read, inner graphs included."""
    inside = {id(node) for node in chain}
    read = set(index.inner_reads)
    for node in index.graph.node:
        if id(node) not in inside:
            read.update(node.input)
    return {name for node in chain for name in node.output if name} & read


def _read_otherwise(graph: GraphProto) -> set[str]:
    """Stored tensors that a node reads which cannot be folded."""
    return {
        name
        for each in all_graphs(graph)
        for node in each.node
        if node.op_type not in _FOLDABLE or _is_gather_of_rows(each, node)
        for name in node.input
    } | {v.name for each in all_graphs(graph) for v in each.output}


def _is_gather_of_rows(graph: GraphProto, node: NodeProto) -> bool:
    """Whether a Gather looks rows up by indices that are computed or fed."""
    stored = {tensor.name for tensor in graph.initializer}
    return node.op_type == "Gather" and node.input[1] not in stored


def _sources(index: GraphIndex, chain: list[NodeProto], constants: Arrays) -> Arrays:
    """The constants that constant nodes read, by name."""
    made = {name for node in chain for name in node.output}
    read = dict.fromkeys(n for node in chain for n in node.input if n and n not in made)
    found: Arrays = {}
    for name in read:
        stored = constants.get(name)
        value = stored if stored is not None else index.constant(name)
        if value is not None:
            found[name] = value
    return found


def _made_of(name: str, chain: list[NodeProto]) -> set[str]:
    """All that a value of a chain is computed from."""
    found = {name}
    for node in reversed(chain):
        if not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def _computed(
    proto: ModelProto, chain: list[NodeProto], sources: Arrays, wanted: list[str]
) -> Arrays:
    """What a chain of constant nodes makes, by the runtime itself; nothing where that fails."""
    if sum(array.nbytes for array in sources.values()) > _MOST_BYTES:
        return {}
    made = ModelProto(ir_version=proto.ir_version)
    made.opset_import.extend(proto.opset_import)
    made.graph.name = "constants"
    made.graph.node.extend(chain)
    made.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in sources.items())
    made.graph.output.extend(ValueInfoProto(name=name) for name in wanted)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return dict(zip(wanted, session.run(None, {}), strict=True))
    except Exception:  # noqa: BLE001 - a branch that is never taken may compute what cannot be
        return {}
