"""Layers inside If, Loop and Scan, which keep their channels."""

from __future__ import annotations

from edgekit.compression.pruning.dependency.propagation import describe_node
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import MULTIPLYING_OPS


def describe_inner_layers(index: GraphIndex) -> str:
    """Name the first layer with a stored weight in an inner graph; empty if there is none."""
    nodes = [
        node
        for inner in index.inner()
        for node in inner.graph.node
        if node.op_type in MULTIPLYING_OPS and any(_is_matrix(inner, name) for name in node.input)
    ]
    if not nodes:
        return ""
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    first = describe_node(nodes[0])
    return f"{first}{more} (inside If, Loop or Scan, where channels cannot be pruned)"


def _is_matrix(index: GraphIndex, name: str) -> bool:
    tensor = index.initializers.get(name)
    return tensor is not None and len(tensor.dims) > 1
