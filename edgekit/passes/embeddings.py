"""Embeddings in 8 bits: rows are gathered as integers, and only what was read is dequantised."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.placement import as_weighted
from edgekit.passes.affine import LARGEST, symmetric_scales, to_int8

# A smaller table is cheaper left alone than gathered twice.
_MIN_ENTRIES = 4096


def quantize_embeddings(index: GraphIndex, largest: int = LARGEST[8]) -> int:
    """Store every large table that is gathered by rows as int8 with a scale per row, in place.

    Args:
        index: the graph.
        largest: magnitude of the largest integer.

    Returns:
        How many Gather nodes were replaced.
    """
    stored: dict[str, tuple[str, str]] = {}
    nodes: list[NodeProto] = []
    replaced = 0
    for node in index.graph.node:
        if not _is_embedding(index, node):
            nodes.append(node)
            continue
        table = node.input[0]
        if table not in stored:
            stored[table] = _store(index, table, largest)
        nodes += _gather(index, node, *stored[table])
        replaced += 1
    del index.graph.node[:]
    index.graph.node.extend(nodes)
    index.drop_unread_constants()
    return replaced


def _is_embedding(index: GraphIndex, node: NodeProto) -> bool:
    name = node.input[0] if _gathers_rows(node) else ""
    table = index.initializers.get(name)
    if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        return False
    if table.dims[0] * table.dims[1] < _MIN_ENTRIES or not index.is_finite(name):
        return False
    # A table that something else reads as it is has to stay: another copy would only cost. An
    # output layer gets integers of its own, which are the same ones and stored once in the end.
    if name in index.outputs | index.inner_reads:
        return False
    return all(_gathers_rows(node) or as_weighted(index, node) for node in index.readers[name])


def _gathers_rows(node: NodeProto) -> bool:
    return node.op_type == "Gather" and attribute(node, "axis", 0) == 0


def _store(index: GraphIndex, name: str, largest: int) -> tuple[str, str]:
    table = index.float_constant(name)
    scales = symmetric_scales(table, 0, largest)
    integers = index.add_constant("e", to_int8(table, scales, 0, largest))
    return integers, index.add_constant("es", scales[:, np.newaxis])


def _gather(index: GraphIndex, node: NodeProto, integers: str, scales: str) -> list[NodeProto]:
    rows, scale, real = (index.fresh(stem) for stem in ("g", "gs", "gr"))
    return [
        helper.make_node("Gather", [integers, node.input[1]], [rows], axis=0),
        helper.make_node("Gather", [scales, node.input[1]], [scale], axis=0),
        helper.make_node("Cast", [rows], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, scale], [node.output[0]]),
    ]
