"""Hoisting of weights from inner graphs (If, Loop, Scan) into the main graph."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import iter_graphs

# Smaller tensors are bounds, shapes and counters rather than weights.
_LEAST_ENTRIES = 64


def hoist_weights(proto: ModelProto) -> None:
    """Move the stored float weights of inner graphs into the main graph, in place.

    An inner graph can read the values of the graphs around it, so only names change, and only where
    another graph uses the same name. Results stay the same.
    """
    main = GraphIndex(proto)
    for index in main.inner():
        graph = index.graph
        kept_out = {v.name for v in (*graph.input, *graph.output)}
        for tensor in list(_iter_weights(graph)):
            if tensor.name not in kept_out:
                _move_to_main(main, graph, tensor)


def _iter_weights(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield the weights of one graph; those of Constant nodes get the name of their output."""
    yield from (tensor for tensor in graph.initializer if _is_weight(tensor))
    for node in graph.node:
        value = read_attribute(node, "value", None) if node.op_type == "Constant" else None
        if isinstance(value, TensorProto) and _is_weight(value):
            named = TensorProto()
            named.CopyFrom(value)
            named.name = node.output[0]
            yield named


def _is_weight(tensor: TensorProto) -> bool:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return tensor.data_type in floats and math.prod(tensor.dims) >= _LEAST_ENTRIES


def _move_to_main(main: GraphIndex, graph: GraphProto, tensor: TensorProto) -> None:
    old = tensor.name
    new = main.fresh(old)
    copy = main.graph.initializer.add()
    copy.CopyFrom(tensor)
    copy.name = new
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name == old:
            del graph.initializer[index]
    for index in reversed(range(len(graph.node))):
        if graph.node[index].op_type == "Constant" and graph.node[index].output[0] == old:
            del graph.node[index]
    for reader in _iter_nodes(graph):
        for position, name in enumerate(reader.input):
            if name == old:
                reader.input[position] = new


def _iter_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for subgraph in iter_graphs(graph):
        yield from subgraph.node
