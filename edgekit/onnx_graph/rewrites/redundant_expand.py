"""Removal of Expand nodes in front of a MatMul that broadcasts the weight itself."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.shape_inference import NamedShape, infer_named_shapes


def drop_expansions(proto: ModelProto) -> None:
    """Let a MatMul read a stored weight itself instead of one copy per sample, in place.

    torch.bmm needs a matrix for each sample, so exporters insert an Expand behind the weight;
    MatMul broadcasts. The Expand is removed if the other factor has the sizes that it expands to.
    """
    index = GraphIndex(proto)
    expands = {
        node.output[0]: node
        for node in proto.graph.node
        if node.op_type == "Expand" and node.input[0] in index.initializers
    }
    if not expands:
        return
    shapes = infer_named_shapes(proto)
    for node in proto.graph.node:
        for position in (0, 1) if node.op_type == "MatMul" else ():
            expand = expands.get(node.input[position])
            if expand is not None and _is_needless(node, position, expand, shapes):
                node.input[position] = expand.input[0]
    read_names = {name for node in proto.graph.node for name in node.input}
    read_names |= index.outputs | index.inner_reads
    gone = expands.keys() - read_names
    index.replace_nodes([node for node in proto.graph.node if gone.isdisjoint(node.output)])


def _is_needless(
    product: NodeProto, position: int, expand: NodeProto, shapes: Mapping[str, NamedShape]
) -> bool:
    """Return whether the product has the same shape without the Expand."""
    weight, expanded = shapes.get(expand.input[0]), shapes.get(expand.output[0])
    other = shapes.get(product.input[1 - position])
    if weight is None or expanded is None or other is None or len(weight) < 2:
        return False
    if weight[-2:] != expanded[-2:] or len(other) != len(expanded):
        return False
    filled = (1,) * (len(expanded) - len(weight)) + weight
    pairs = zip(filled[:-2], expanded[:-2], other[:-2], strict=True)
    return all(
        old == new or (new is not None and new == other_size) for old, new, other_size in pairs
    )
