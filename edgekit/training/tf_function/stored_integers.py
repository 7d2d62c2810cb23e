"""Replacement of weights that are stored as integers by floats, which have gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_inner_graphs
from edgekit.onnx_graph.rewrites.bias_scales import store_bias_scales
from edgekit.tflite.ir import Array
from edgekit.training.tf_function.dynamic_rounding import DynamicRounding
from edgekit.training.tf_function.integer_uses import INTEGER_LSTM, Use


def copy_with_stored_scales(proto: ModelProto) -> ModelProto:
    """Copy a model, with computed bias scales and values of Constant nodes as initializers."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    nodes = []
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            node.attribute[0].t.name = node.output[0]
            copy.graph.initializer.append(node.attribute[0].t)
        else:
            nodes.append(node)
    GraphIndex(copy).replace_nodes(nodes)
    store_bias_scales(copy)
    return copy


def replace_with_floats(index: GraphIndex, uses: Mapping[str, Sequence[Use]]) -> None:
    """Replace stored integers by floats under the same names, and dequantize them no more.

    Args:
        index: the graph, changed in place; not to be used afterwards.
        uses: result of ``find_uses``.
    """
    rounding = DynamicRounding(index)
    places: dict[str, tuple[str, Use]] = {}
    for name, found in uses.items():
        real = found[0].grid.real(np.asarray(index.constant(name)))
        index.initializers[name].CopyFrom(_make_float(name, real))
        places |= {use.output: (name, use) for use in found if use.output}
    nodes: list[NodeProto] = []
    for node in index.graph.node:
        if node.op_type == INTEGER_LSTM and node.input[1] in uses:
            nodes += _build_lstm(index, node, rounding)
        elif node.output and node.output[0] in places:
            nodes += _build_nodes(index, *places[node.output[0]], rounding)
        else:
            nodes.append(node)
    index.replace_nodes(_drop_unread(nodes, index.outputs))
    index.drop_unread_constants()


def _make_float(name: str, values: Array) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
    tensor.raw_data = np.ascontiguousarray(values, "<f4").tobytes()
    return tensor


def _build_nodes(
    index: GraphIndex, name: str, use: Use, rounding: DynamicRounding
) -> list[NodeProto]:
    """Build the nodes that compute the output of a place from the float weight."""
    outputs = [use.output]
    if use.kind == "rows":
        return [helper.make_node("Gather", [name, use.other], outputs, axis=0)]
    if use.kind == "weight" and use.turned:
        return [_transpose(name, use.output, [1, 0])]
    if use.kind == "weight":
        return [helper.make_node("Identity", [name], outputs)]
    nodes, rounded = rounding.round(use.other)
    weight = name
    if use.turned:
        weight = index.fresh(f"{name}_turned")
        nodes.append(_transpose(name, weight, [1, 0]))
    return [*nodes, helper.make_node("MatMul", [rounded, weight], outputs)]


def _transpose(source: str, output: str, order: Sequence[int]) -> NodeProto:
    return helper.make_node("Transpose", [source], [output], perm=list(order))


def _build_lstm(index: GraphIndex, node: NodeProto, rounding: DynamicRounding) -> list[NodeProto]:
    """Build a float LSTM; its state is not rounded, which lies between -1 and 1."""
    nodes, rounded = rounding.round(node.input[0])
    weights = [index.fresh(f"{node.input[place]}_turned") for place in (1, 2)]
    for place, turned in enumerate(weights, 1):
        nodes.append(helper.make_node("Transpose", [node.input[place]], [turned], perm=[0, 2, 1]))
    lstm = helper.make_node(
        "LSTM", [rounded, *weights, *node.input[3:8]], list(node.output), name=node.name
    )
    lstm.attribute.extend(node.attribute)
    return [*nodes, lstm]


def _drop_unread(nodes: Sequence[NodeProto], outputs: set[str]) -> list[NodeProto]:
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.isdisjoint(node.output):
            continue
        needed |= set(node.input)
        for inner in iter_inner_graphs(node):
            needed |= GraphIndex(ModelProto(graph=inner)).inner_reads
            needed |= {name for each in inner.node for name in each.input}
            needed |= {value.name for value in inner.output}
        kept.append(node)
    return kept[::-1]
