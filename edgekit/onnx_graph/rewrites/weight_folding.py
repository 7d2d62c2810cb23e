"""Constant folding of weights computed from stored tensors (gates sliced and concatenated)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import (
    MAX_BYTES,
    iter_graphs,
    iter_inner_graphs,
    make_session_options,
)
from edgekit.onnx_graph.operators import is_standard
from edgekit.onnx_graph.qdq_placement import is_row_gather

# Smaller results are shapes, bounds and counters rather than weights.
_LEAST_ENTRIES = 64
# Largest growth of a folded weight over its sources (Expand and Tile are left to the runtime).
_MAX_GROWTH = 1.05
# The constants to fold must fit one protobuf message.
_MOST_BYTES = MAX_BYTES // 4
# Operators that move, scale, normalize or multiply entries; their results on constants are folded.
_FOLDABLE = {
    "Abs", "Add", "Cast", "Concat", "Div", "Exp", "Flatten", "Gather", "Identity", "MatMul", "Max",
    "Min", "Mul", "Neg", "Pad", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "Reshape", "Shape", "Slice", "Split", "Sqrt",
    "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip
# Operators whose weights are quantized to integers; equal weights are stored once.
_INTEGER_READERS = {"Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "RNN"}
_FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}

Arrays = dict[str, NDArray[np.generic]]


def fold_weights(proto: ModelProto, *, keep_ties: bool = False) -> None:
    """Fold weights computed from stored tensors into constants of the main graph, in place.

    Exporters slice the gates of an LSTM and concatenate them in another order, also inside the
    branches of an If; weight normalization and low-rank adapters compute weights. Equal results are
    stored once. Two kinds are not folded: weights whose source is also read directly (such as a
    tied embedding), and integers, which are quantized weights.

    Args:
        proto: the model.
        keep_ties: do not fold several weights of one source that together are larger than it.
    """
    main = GraphIndex(proto)
    folding = _WeightFolder(main, keep_ties=keep_ties)
    folding.fold(main, {})
    if folding.stored:
        folding.drop_unread_nodes()
        GraphIndex(proto).drop_unread_constants()


class _WeightFolder:
    """Folded weights of a model by content hash, shared by all its graphs."""

    def __init__(self, main: GraphIndex, *, keep_ties: bool) -> None:
        self.main = main
        self.keep_ties = keep_ties
        self.stored: dict[bytes, str] = {}
        self.tied = _find_direct_reads(main.proto.graph)

    def fold(self, index: GraphIndex, outer_constants: Arrays) -> None:
        """Fold the weights computed in a graph and in the graphs inside it, in place.

        Args:
            index: the graph.
            outer_constants: small constants of the enclosing graphs, by name.
        """
        constants = outer_constants | _read_constants(index)
        chain = list(_iter_constant_nodes(index, constants))
        needed_results = _find_needed_results(index, chain)
        if needed_results:
            sources = _read_sources(index, chain, constants)
            results = _compute_constants(index.proto, chain, sources, sorted(needed_results))
            weights = {
                name: value
                for name, value in results.items()
                if self._is_weight(name, value, chain, sources)
            }
            multiplied = _find_multiplied(results, weights, chain, sources)
            for name, value in results.items():
                if name in weights and self._is_worth_storing(index, name, multiplied):
                    self._store(index, name, value)
                elif value.size < _LEAST_ENTRIES:
                    constants[name] = value
        for node in list(index.graph.node):
            for graph in iter_inner_graphs(node):
                inner = GraphIndex(index.proto, inner=graph, outer=index)
                hidden = {v.name for v in graph.input} | inner.producer.keys()
                self.fold(inner, {k: v for k, v in constants.items() if k not in hidden})

    def _is_weight(
        self, name: str, value: NDArray[np.generic], chain: list[NodeProto], sources: Arrays
    ) -> bool:
        if value.dtype not in _FLOATS or value.size < _LEAST_ENTRIES:
            return False
        used_sources = _find_dependencies(name, chain) & sources.keys()
        large = [k for k in used_sources if sources[k].size >= _LEAST_ENTRIES]
        if any(sources[k].dtype not in _FLOATS or k in self.tied for k in large):
            return False
        return value.nbytes <= _MAX_GROWTH * sum(sources[k].nbytes for k in large)

    def _is_worth_storing(self, index: GraphIndex, name: str, multiplied: set[str]) -> bool:
        """Return whether a folded weight replaces its source, or shares int8 storage."""
        if name not in multiplied:
            return True
        return not self.keep_ties and all(
            n.op_type in _INTEGER_READERS or is_row_gather(n) for n in index.readers[name]
        )

    def _store(self, index: GraphIndex, name: str, value: NDArray[np.generic]) -> None:
        if name in index.outputs:
            return
        key = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).digest()
        if key not in self.stored:
            self.stored[key] = self.main.add_constant(name, value)
        for graph in iter_graphs(index.graph):
            for node in graph.node:
                for position, input_name in enumerate(node.input):
                    if input_name == name:
                        node.input[position] = self.stored[key]

    def drop_unread_nodes(self) -> None:
        """Remove the nodes that only computed weights which are now stored."""
        for graph in reversed(list(iter_graphs(self.main.proto.graph))):
            _drop_unread(graph)


def _drop_unread(graph: GraphProto) -> None:
    """Remove foldable nodes whose results are not read, from the end backwards."""
    read_names = {v.name for v in graph.output}
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        is_foldable = node.op_type in _FOLDABLE and is_standard(node)
        if is_foldable and read_names.isdisjoint(node.output):
            del graph.node[position]
            continue
        read_names.update(node.input)
        for inner in iter_inner_graphs(node):
            read_names |= {
                n for g in iter_graphs(inner) for inner_node in g.node for n in inner_node.input
            }
            read_names |= {v.name for g in iter_graphs(inner) for v in g.output}


def _iter_constant_nodes(index: GraphIndex, constants: Arrays) -> Iterator[NodeProto]:
    """Yield the nodes that only move, concatenate or scale constants, in graph order."""
    constant_names = set(constants)
    for node in index.graph.node:
        if not is_standard(node) or node.op_type not in _FOLDABLE:
            continue
        if all(
            not name or name in index.initializers or name in constant_names for name in node.input
        ):
            constant_names.update(node.output)
            yield node


def _read_constants(index: GraphIndex) -> Arrays:
    """Read the Constant nodes of a graph, and the initializers of an inner graph."""
    constants: Arrays = {}
    if index is not index.main:
        constants |= {t.name: numpy_helper.to_array(t) for t in index.graph.initializer}
    for node in index.graph.node:
        value = read_attribute(node, "value", None) if node.op_type == "Constant" else None
        if isinstance(value, TensorProto):
            constants[node.output[0]] = numpy_helper.to_array(value)
    return constants


def _find_needed_results(index: GraphIndex, chain: list[NodeProto]) -> set[str]:
    """Return the results of constant nodes that other nodes read, also in inner graphs."""
    inside = {id(node) for node in chain}
    read_names = set(index.inner_reads)
    for node in index.graph.node:
        if id(node) not in inside:
            read_names.update(node.input)
    return {name for node in chain for name in node.output if name} & read_names


def _find_direct_reads(graph: GraphProto) -> set[str]:
    """Return the names that outputs and nodes which cannot be folded read."""
    direct_reads = {value.name for subgraph in iter_graphs(graph) for value in subgraph.output}
    constant_names: set[str] = set()
    for subgraph in iter_graphs(graph):
        constant_names.update(tensor.name for tensor in subgraph.initializer)
        for node in subgraph.node:
            if node.op_type == "Constant" or _computes_constant(node, constant_names):
                constant_names.update(node.output)
            else:
                direct_reads.update(node.input)
    return direct_reads


def _computes_constant(node: NodeProto, constant_names: Collection[str]) -> bool:
    standard = is_standard(node) and node.op_type in _FOLDABLE
    return standard and all(not name or name in constant_names for name in node.input)


def _read_sources(index: GraphIndex, chain: list[NodeProto], constants: Arrays) -> Arrays:
    """Return the constants that constant nodes read, by name."""
    computed = {name for node in chain for name in node.output}
    source_names = dict.fromkeys(n for node in chain for n in node.input if n and n not in computed)
    sources: Arrays = {}
    for name in source_names:
        stored = constants.get(name)
        value = stored if stored is not None else index.constant(name)
        if value is not None:
            sources[name] = value
    return sources


def _find_dependencies(name: str, chain: list[NodeProto]) -> set[str]:
    """Return all values that a result of constant nodes depends on."""
    dependencies = {name}
    for node in reversed(chain):
        if not dependencies.isdisjoint(node.output):
            dependencies.update(node.input)
    return dependencies


def _find_multiplied(
    results: Arrays, weights: Arrays, chain: list[NodeProto], sources: Arrays
) -> set[str]:
    """Return the weights that would take more bytes than their sources if all were folded.

    A source stays stored if it also feeds a large result that is not folded.
    """
    candidates = {
        name: {k for k in _find_dependencies(name, chain) if k in sources and _is_large(sources[k])}
        for name, value in results.items()
        if _is_large(value)
    }
    multiplied: set[str] = set()
    while candidates:
        first, shared = candidates.popitem()
        group = {first}
        while more := [
            name for name, sources_of_weight in candidates.items() if sources_of_weight & shared
        ]:
            group.update(more)
            shared = shared.union(*(candidates.pop(name) for name in more))
        stored = {value.tobytes(): value.nbytes for value in (results[n] for n in group)}
        source_bytes = sum(sources[k].nbytes for k in shared)
        total = sum(stored.values()) + (0 if group <= weights.keys() else source_bytes)
        if total > _MAX_GROWTH * source_bytes:
            multiplied |= group
    return multiplied


def _is_large(value: NDArray[np.generic]) -> bool:
    return value.size >= _LEAST_ENTRIES


def _compute_constants(
    proto: ModelProto, chain: list[NodeProto], sources: Arrays, result_names: list[str]
) -> Arrays:
    """Compute the wanted results of constant nodes with onnxruntime; empty if it fails."""
    if sum(array.nbytes for array in sources.values()) > _MOST_BYTES:
        return {}
    model = ModelProto(ir_version=proto.ir_version)
    model.opset_import.extend(proto.opset_import)
    model.graph.name = "constants"
    model.graph.node.extend(chain)
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in sources.items())
    model.graph.output.extend(ValueInfoProto(name=name) for name in result_names)
    options = make_session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return dict(zip(result_names, session.run(None, {}), strict=True))
    except Exception:  # noqa: BLE001 - a branch that never runs may hold an invalid computation
        return {}
