"""Rewrite of ONNX integer layers as float layers between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.conversion.onnx_to_tflite.recurrent_qdq import (
    StoredIntegers,
    dequantize_layer,
    is_bidirectional,
    is_integer_lstm,
    read_integer_lstm_weights,
)
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import get_opset, iter_graphs
from edgekit.onnx_graph.operators import is_standard
from edgekit.tflite.ir import Array

_STORED = ("int8", "int4")
_AXIS_SINCE = 13  # DequantizeLinear has scales along an axis from this opset on


def replace_integer_layers(proto: ModelProto) -> ModelProto:
    """Return a model whose integer layers are float layers with QDQ.

    Integer layers are QLinearConv, MatMulInteger and their like, onnxruntime's integer LSTM, and
    weights that Cast and Mul compute from stored integers.

    Args:
        proto: Not changed; returned as it is where it has no such layer.
    """
    if not any(_is_integer_layer(n) for graph in iter_graphs(proto.graph) for n in graph.node):
        return proto
    rewritten = ModelProto()
    rewritten.CopyFrom(proto)
    main = GraphIndex(rewritten)
    weights = _find_cast_weights(main)
    for index in main.inner():
        _rewrite_graph(index, weights)
    _rewrite_graph(main, weights)
    return rewritten


def _is_integer_layer(node: NodeProto) -> bool:
    if is_standard(node):
        return node.op_type in _INTEGER_LAYERS or node.op_type == "Cast"
    return is_integer_lstm(node)


def _rewrite_graph(index: GraphIndex, weights: Mapping[str, StoredIntegers]) -> None:
    nodes: list[NodeProto] = []
    for node in index.graph.node:
        nodes += _rewrite_node(index, node, weights)
    index.replace_nodes(nodes)


def _rewrite_node(
    index: GraphIndex, node: NodeProto, weights: Mapping[str, StoredIntegers]
) -> list[NodeProto]:
    rewrite = _INTEGER_LAYERS.get(node.op_type) if is_standard(node) else None
    if rewrite is not None:
        return rewrite(index, node)
    if get_opset(index.proto) < _AXIS_SINCE:
        return [node]
    if is_integer_lstm(node) and (lstm_weights := read_integer_lstm_weights(index, node)):
        return dequantize_layer(index, node, lstm_weights)
    if is_bidirectional(node) and all(name in weights for name in node.input[1:3]):
        return dequantize_layer(index, node, [weights[name] for name in node.input[1:3]])
    stored = weights.get(node.output[0]) if node.output else None
    if stored is None or stored.axis is None or index is not index.main:
        return [node]
    dequantize_node, real_name = stored.dequantize(index, node.output[0])
    return [dequantize_node, helper.make_node("Identity", [real_name], list(node.output))]


def _find_cast_weights(main: GraphIndex) -> dict[str, StoredIntegers]:
    """Find weights that Cast and Mul compute from stored integers and scales, by output name."""
    cast_weights: dict[str, StoredIntegers] = {}
    for node in main.graph.node:
        if node.op_type != "Mul" or not is_standard(node):
            continue
        cast = main.producer.get(node.input[0])
        scales = main.constant(node.input[1])
        if cast is None or cast.op_type != "Cast" or scales is None:
            continue
        integers = main.constant(cast.input[0])
        if integers is None or integers.dtype.name not in _STORED or scales.dtype != np.float32:
            continue
        if scales.ndim == integers.ndim:
            stored = StoredIntegers(integers=np.asarray(integers), scales=np.asarray(scales))
            cast_weights[node.output[0]] = stored
    return cast_weights


def _build_dequantize(
    index: GraphIndex, node: NodeProto, names: Sequence[str], axis: int
) -> tuple[list[NodeProto], str]:
    """Build the DequantizeLinear of a value, its scale and its zero point, and name its output."""
    real_name = index.fresh(f"{names[0]}_real")
    scales = index.constant(names[1])
    is_split = scales is not None and scales.size > 1
    if is_split and get_opset(index.proto) < _AXIS_SINCE and index.constant(names[0]) is not None:
        return [], index.add_constant(real_name, _dequantize_constant(index, names, axis))
    dequantize_node = helper.make_node(
        "DequantizeLinear", list(names), [real_name], name=f"{node.name}/{names[0]}"
    )
    if is_split:
        dequantize_node.attribute.append(helper.make_attribute("axis", axis))
    return [dequantize_node], real_name


def _dequantize_constant(index: GraphIndex, names: Sequence[str], axis: int) -> Array:
    """Dequantize stored integers with scales along an axis."""
    value, scales = index.float_constant(names[0]), index.float_constant(names[1])
    zeros = index.float_constant(names[2]) if len(names) > 2 else np.zeros_like(scales)
    shape = [1] * value.ndim
    shape[axis] = scales.size
    real = (value - zeros.reshape(shape)) * scales.reshape(shape)
    return np.asarray(real, np.float32)


def _read_attributes(node: NodeProto) -> dict[str, object]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _rewrite_linear_conv(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    x, w = list(node.input[0:3]), list(node.input[3:6])
    image, image_name = _build_dequantize(index, node, x, 1)
    weight, weight_name = _build_dequantize(index, node, w, 0)
    nodes, names = [*image, *weight], [image_name, weight_name]
    if len(node.input) > 8 and node.input[8]:
        scales = index.float_constant(x[1]) * index.float_constant(w[1])
        scale = index.add_constant(f"{node.input[8]}_scale", np.asarray(scales, np.float32))
        zeros = np.zeros(np.shape(scales), np.int32)
        zero = index.add_constant(f"{node.input[8]}_zero", zeros)
        bias, bias_name = _build_dequantize(index, node, [node.input[8], scale, zero], 0)
        nodes += bias
        names.append(bias_name)
    return [*nodes, *_build_layer(index, node, "Conv", names, node.input[6:8])]


def _rewrite_linear_matmul(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    left, left_name = _build_dequantize(index, node, node.input[0:3], -2)
    right, right_name = _build_dequantize(index, node, node.input[3:6], -1)
    names = [left_name, right_name]
    return [*left, *right, *_build_layer(index, node, "MatMul", names, node.input[6:8])]


def _build_layer(
    index: GraphIndex, node: NodeProto, op_type: str, names: Sequence[str], grid: Sequence[str]
) -> list[NodeProto]:
    """Build a float layer and the QuantizeLinear of its output."""
    real_name = index.fresh(f"{node.output[0]}_real")
    return [
        helper.make_node(
            op_type, list(names), [real_name], name=node.name, **_read_attributes(node)
        ),
        helper.make_node(
            "QuantizeLinear", [real_name, *grid], list(node.output), name=f"{node.name}/q"
        ),
    ]


def _rewrite_integer_layer(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    """Rewrite ConvInteger or MatMulInteger as a float layer whose output is cast to int32."""
    is_conv = node.op_type == "ConvInteger"
    one = index.add_constant("one", np.asarray(1, np.float32))
    nodes: list[NodeProto] = []
    names: list[str] = []
    for position, axis in ((0, 1), (1, 0)) if is_conv else ((0, -2), (1, -1)):
        zero = node.input[2 + position] if len(node.input) > 2 + position else ""
        scale = one
        zeros = index.initializers.get(zero)
        if zeros is not None and len(zeros.dims):
            scale = index.add_constant("ones", np.ones(tuple(zeros.dims), np.float32))
        names_in = [node.input[position], scale, *([zero] if zero else [])]
        dequantize_nodes, real_name = _build_dequantize(index, node, names_in, axis)
        nodes += dequantize_nodes
        names.append(real_name)
    product, rounded = index.fresh("product"), index.fresh("product_rounded")
    op_type = "Conv" if is_conv else "MatMul"
    return [
        *nodes,
        helper.make_node(op_type, names, [product], name=node.name, **_read_attributes(node)),
        helper.make_node("Round", [product], [rounded]),
        helper.make_node("Cast", [rounded], list(node.output), to=TensorProto.INT32),
    ]


_INTEGER_LAYERS = {
    "ConvInteger": _rewrite_integer_layer,
    "MatMulInteger": _rewrite_integer_layer,
    "QLinearConv": _rewrite_linear_conv,
    "QLinearMatMul": _rewrite_linear_matmul,
}
