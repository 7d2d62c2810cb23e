"""8-bit embeddings: rows are gathered as integers, and only the rows read are dequantized."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.compression.quantization.affine import (
    LARGEST,
    Floats,
    compute_symmetric_scales,
    to_int8,
)
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import MATRIX_OPS
from edgekit.onnx_graph.qdq_placement import (
    is_embedding_table,
    is_factor_transpose,
    is_row_gather,
    match_weighted_node,
)

Integers = NDArray[np.int8]

# A smaller table is cheaper in float than gathered twice (integers and scales).
LEAST_TABLE = 4096
# Rows of fewer columns take no fewer bytes as integers with a scale: such as a column of scales.
_LEAST_COLUMNS = 4


def quantize_embeddings(proto: ModelProto, largest: int = LARGEST[8]) -> int:
    """Store every large table that is gathered by rows as int8 with a scale per row, in place.

    A table that is an output layer as well has the integers of that layer, so that both are
    stored once in the end.

    Args:
        proto: the model, its weights constants of the main graph.
        largest: magnitude of the largest integer of products.

    Returns:
        The number of replaced Gather nodes.
    """
    _transpose_tables(GraphIndex(proto))
    index = GraphIndex(proto)
    tables = {}
    for name in _find_tables(index):
        table = index.float_constant(name)
        most = largest if _is_factor(index, name) else LARGEST[8]
        scales = compute_symmetric_scales(table, 0, most)
        tables[name] = (to_int8(table, scales, 0, most), scales)
    found = store_embeddings(index, tables)
    _store_shared_factors(GraphIndex(proto), largest)
    return found


def find_embeddings(index: GraphIndex) -> list[str]:
    """Find the large float tables that only gathers of rows and products read."""
    return [name for name in _find_tables(index) if is_embedding_table(index, name)]


def _find_tables(index: GraphIndex) -> list[str]:
    """Find the large float tables that are gathered by rows in the main graph."""
    found = (node.input[0] for node in index.graph.node if is_row_gather(node))
    return [name for name in dict.fromkeys(found) if _is_large(index, name)]


def store_embeddings(index: GraphIndex, tables: Mapping[str, tuple[Integers, Floats]]) -> int:
    """Replace tables by integers and a scale per row.

    Products keep the float table, to be quantized as their weight. All other readers get it
    dequantized by Cast and Mul, which onnxruntime folds at load.

    Args:
        index: the graph.
        tables: integers [rows, columns] and scales [rows], by name of the table.

    Returns:
        The number of replaced Gather nodes.
    """
    stored = {
        name: (index.add_constant("e", integers), index.add_constant("es", scales[:, np.newaxis]))
        for name, (integers, scales) in tables.items()
    }
    nodes = [
        made
        for name, parts in stored.items()
        for made in _dequantize_for_others(index, name, *parts)
    ]
    replaced = 0
    for node in index.graph.node:
        if not is_row_gather(node) or node.input[0] not in stored:
            nodes.append(node)
            continue
        nodes += _build_gather(index, node, *stored[node.input[0]])
        replaced += 1
    index.replace_nodes(nodes)
    index.drop_unread_constants()
    return replaced


def find_shared_tables(index: GraphIndex) -> list[str]:
    """Find the large weights of products that other operators, such as a Gather, read as well."""
    return [
        name
        for name in index.initializers
        if _is_large(index, name) and _find_other_readers(index, name) and _is_factor(index, name)
    ]


def store_shared_tables(index: GraphIndex, names: Collection[str]) -> list[str]:
    """Store tables in 8 bits, a scale per row, unless a product still reads them, in place.

    Returns:
        Names of the tables that were stored.
    """
    stored = [
        name
        for name in names
        if name in index.initializers
        and index.readers[name]
        and not any(_is_product(index, node) for node in index.readers[name])
    ]
    tables = {}
    for name in stored:
        table = index.float_constant(name)
        scales = compute_symmetric_scales(table, 0)
        tables[name] = (to_int8(table, scales, 0), scales)
    store_embeddings(index, tables)
    return stored


def _store_shared_factors(index: GraphIndex, largest: int) -> None:
    """Store large weights of products in int8 for all their other readers, in place.

    The integers are those of the product, so that both are stored once in the end.
    """
    nodes: list[NodeProto] = []
    for name in find_shared_tables(index):
        others = _find_other_readers(index, name)
        direct = any(n.op_type != "Transpose" for n in index.readers[name] if n not in others)
        axis = _find_output_axis(index, name) if direct else 0
        table = index.float_constant(name)
        scales = compute_symmetric_scales(table, axis, largest)
        integers = to_int8(table, scales, axis, largest)
        shape = (-1, 1) if axis == 0 else (1, -1)
        parts = index.add_constant("e", integers), index.add_constant("es", scales.reshape(shape))
        nodes += _dequantize_for_others(index, name, *parts)
    index.replace_nodes([*nodes, *index.graph.node])
    index.drop_unread_constants()


def _find_other_readers(index: GraphIndex, name: str) -> list[NodeProto]:
    return [node for node in index.readers[name] if not _is_product(index, node)]


def _find_output_axis(index: GraphIndex, name: str) -> int:
    """Return the axis of the output channels of a weight."""
    found = (match_weighted_node(index, node) for node in index.readers[name])
    return next((each.axis for each in found if each is not None and each.weight == name), 0)


def _transpose_tables(index: GraphIndex) -> None:
    """Store tables transposed if their rows are gathered behind a Transpose, in place.

    Products keep the constant that they read: int8 copies of both are stored once in the end.
    """
    nodes: list[NodeProto] = []
    for node in index.graph.node:
        if not _is_table_transpose(index, node):
            nodes.append(node)
            continue
        name, made = node.input[0], node.output[0]
        turned = index.add_constant("t", index.float_constant(name).T)
        back = index.fresh("t")
        for reader in index.readers[made]:
            _replace_input(reader, made, turned)
        others = [n for n in index.readers[name] if n is not node and not _is_product(index, n)]
        for reader in others:
            _replace_input(reader, name, back)
        if others:
            nodes.insert(0, helper.make_node("Transpose", [turned], [back], perm=[1, 0]))
    index.replace_nodes(nodes)
    index.drop_unread_constants()


def _is_table_transpose(index: GraphIndex, node: NodeProto) -> bool:
    """Return whether a node transposes a large table for a Gather of its rows."""
    if node.op_type != "Transpose" or node.output[0] in index.outputs | index.inner_reads:
        return False
    readers = index.readers[node.output[0]]
    gathered = any(is_row_gather(n) and n.input[0] == node.output[0] for n in readers)
    turned = read_attribute(node, "perm", [1, 0]) == [1, 0]
    return gathered and turned and _is_large(index, node.input[0])


def _replace_input(node: NodeProto, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        node.input[position] = new if name == old else name


def _is_large(index: GraphIndex, name: str) -> bool:
    table = index.initializers.get(name)
    if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        return False
    if table.dims[0] * table.dims[1] < LEAST_TABLE or table.dims[1] < _LEAST_COLUMNS:
        return False
    if not index.is_finite(name):
        return False
    return name not in index.outputs | index.inner_reads


def _is_factor(index: GraphIndex, name: str) -> bool:
    """Return whether a product reads the table or a transposed copy of it."""
    if any(_is_product(index, node) for node in index.readers[name]):
        return True
    table = index.float_constant(name)
    others = (n.input[1] for n in index.graph.node if n.op_type in MATRIX_OPS)
    stored = (index.initializers.get(each) for each in dict.fromkeys(others))
    return any(
        list(each.dims) == list(table.shape[::-1])
        and np.array_equal(index.float_constant(each.name), table.T)
        for each in stored
        if each is not None
    )


def _is_product(index: GraphIndex, node: NodeProto) -> bool:
    return match_weighted_node(index, node) is not None or is_factor_transpose(index, node)


def _dequantize_for_others(
    index: GraphIndex, name: str, integers: str, scales: str
) -> list[NodeProto]:
    """Let readers that neither gather rows nor multiply read a dequantized table."""
    others = [
        node
        for node in _find_other_readers(index, name)
        if not (is_row_gather(node) and node.input[0] == name)
    ]
    if not others:
        return []
    real, table = index.fresh("c"), index.fresh("d")
    for node in others:
        _replace_input(node, name, table)
    return [
        helper.make_node("Cast", [integers], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, scales], [table]),
    ]


def _build_gather(
    index: GraphIndex, node: NodeProto, integers: str, scales: str
) -> list[NodeProto]:
    rows, scale, real = (index.fresh(stem) for stem in ("g", "gs", "gr"))
    return [
        helper.make_node("Gather", [integers, node.input[1]], [rows], axis=0),
        helper.make_node("Gather", [scales, node.input[1]], [scale], axis=0),
        helper.make_node("Cast", [rows], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, scale], [node.output[0]]),
    ]
