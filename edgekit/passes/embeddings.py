"""Embeddings in 8 bits: rows are gathered as integers, and only what was read is dequantised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.placement import gathers_rows, is_table
from edgekit.passes.affine import LARGEST, Floats, symmetric_scales, to_int8

Integers = NDArray[np.int8]

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
    tables = {}
    for name in embeddings(index):
        table = index.float_constant(name)
        scales = symmetric_scales(table, 0, largest)
        tables[name] = (to_int8(table, scales, 0, largest), scales)
    return store_embeddings(index, tables)


def embeddings(index: GraphIndex) -> list[str]:
    """The large float tables that are gathered by rows, and nothing else."""
    found = (node.input[0] for node in index.graph.node if _is_embedding(index, node))
    return list(dict.fromkeys(found))


def store_embeddings(index: GraphIndex, tables: Mapping[str, tuple[Integers, Floats]]) -> int:
    """Put integers and a scale per row in the place of tables.

    Returns:
        How many Gather nodes were replaced.
    """
    stored = {
        name: (index.add_constant("e", integers), index.add_constant("es", scales[:, np.newaxis]))
        for name, (integers, scales) in tables.items()
    }
    nodes: list[NodeProto] = []
    replaced = 0
    for node in index.graph.node:
        if not gathers_rows(node) or node.input[0] not in stored:
            nodes.append(node)
            continue
        nodes += _gather(index, node, *stored[node.input[0]])
        replaced += 1
    del index.graph.node[:]
    index.graph.node.extend(nodes)
    index.drop_unread_constants()
    return replaced


def _is_embedding(index: GraphIndex, node: NodeProto) -> bool:
    name = node.input[0] if gathers_rows(node) else ""
    table = index.initializers.get(name)
    if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        return False
    if table.dims[0] * table.dims[1] < _MIN_ENTRIES or not index.is_finite(name):
        return False
    # A table that something else reads as it is has to stay: another copy would only cost. An
    # output layer gets integers of its own, which are the same ones and stored once in the end.
    return name not in index.outputs | index.inner_reads and is_table(index, name)


def _gather(index: GraphIndex, node: NodeProto, integers: str, scales: str) -> list[NodeProto]:
    rows, scale, real = (index.fresh(stem) for stem in ("g", "gs", "gr"))
    return [
        helper.make_node("Gather", [integers, node.input[1]], [rows], axis=0),
        helper.make_node("Gather", [scales, node.input[1]], [scale], axis=0),
        helper.make_node("Cast", [rows], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, scale], [node.output[0]]),
    ]
