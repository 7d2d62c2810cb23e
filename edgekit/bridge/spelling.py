"""Layers of integers said as layers of reals between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.bridge.graph import Array
from edgekit.graphs.index import GraphIndex

_STANDARD = ("", "ai.onnx")
_AXIS_SINCE = 13  # DequantizeLinear has scales along an axis from this opset on


def with_reals(proto: ModelProto) -> ModelProto:
    """A model whose layers of integers (QLinearConv, MatMulInteger...) are layers of reals.

    Args:
        proto: not changed; itself where it has no such layer.
    """
    if not any(n.op_type in _INTEGER_LAYERS and n.domain in _STANDARD for n in proto.graph.node):
        return proto
    made = ModelProto()
    made.CopyFrom(proto)
    index = GraphIndex(made)
    nodes: list[NodeProto] = []
    for node in made.graph.node:
        say = _INTEGER_LAYERS.get(node.op_type) if node.domain in _STANDARD else None
        nodes += [node] if say is None else say(index, node)
    index.replace_nodes(nodes)
    return made


def _real(
    index: GraphIndex, node: NodeProto, names: Sequence[str], axis: int
) -> tuple[list[NodeProto], str]:
    """The DequantizeLinear of a value, its scale and its zero point, and what it makes."""
    made = index.fresh(f"{names[0]}_real")
    scales = index.constant(names[1])
    is_split = scales is not None and scales.size > 1
    if is_split and _opset(index.proto) < _AXIS_SINCE and index.constant(names[0]) is not None:
        return [], index.add_constant(made, _dequantized(index, names, axis))
    said = helper.make_node("DequantizeLinear", list(names), [made], name=f"{node.name}/{names[0]}")
    if is_split:
        said.attribute.append(helper.make_attribute("axis", axis))
    return [said], made


def _opset(proto: ModelProto) -> int:
    return max((o.version for o in proto.opset_import if o.domain in _STANDARD), default=1)


def _dequantized(index: GraphIndex, names: Sequence[str], axis: int) -> Array:
    """Stored integers as reals, of scales along an axis."""
    value, scales = index.float_constant(names[0]), index.float_constant(names[1])
    zeros = index.float_constant(names[2]) if len(names) > 2 else np.zeros_like(scales)
    shape = [1] * value.ndim
    shape[axis] = scales.size
    real = (value - zeros.reshape(shape)) * scales.reshape(shape)
    return np.asarray(real, np.float32)


def _attributes(node: NodeProto) -> dict[str, object]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _linear_conv(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    x, w = list(node.input[0:3]), list(node.input[3:6])
    image, image_name = _real(index, node, x, 1)
    weight, weight_name = _real(index, node, w, 0)
    nodes, names = [*image, *weight], [image_name, weight_name]
    if len(node.input) > 8 and node.input[8]:
        scales = index.float_constant(x[1]) * index.float_constant(w[1])
        scale = index.add_constant(f"{node.input[8]}_scale", np.asarray(scales, np.float32))
        zeros = np.zeros(np.shape(scales), np.int32)
        zero = index.add_constant(f"{node.input[8]}_zero", zeros)
        bias, bias_name = _real(index, node, [node.input[8], scale, zero], 0)
        nodes += bias
        names.append(bias_name)
    return [*nodes, *_layer(index, node, "Conv", names, node.input[6:8])]


def _linear_matmul(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    left, left_name = _real(index, node, node.input[0:3], -2)
    right, right_name = _real(index, node, node.input[3:6], -1)
    names = [left_name, right_name]
    return [*left, *right, *_layer(index, node, "MatMul", names, node.input[6:8])]


def _layer(
    index: GraphIndex, node: NodeProto, kind: str, names: Sequence[str], grid: Sequence[str]
) -> list[NodeProto]:
    """A layer of reals and the QuantizeLinear of what it makes."""
    made = index.fresh(f"{node.output[0]}_real")
    return [
        helper.make_node(kind, list(names), [made], name=node.name, **_attributes(node)),
        helper.make_node("QuantizeLinear", [made, *grid], list(node.output), name=f"{node.name}/q"),
    ]


def _whole(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    """ConvInteger or MatMulInteger: a layer of reals that are whole numbers, as int32."""
    is_conv = node.op_type == "ConvInteger"
    one = index.add_constant("one", np.asarray(1, np.float32))
    nodes: list[NodeProto] = []
    names: list[str] = []
    for place, axis in ((0, 1), (1, 0)) if is_conv else ((0, -2), (1, -1)):
        zero = node.input[2 + place] if len(node.input) > 2 + place else ""
        scale = one
        zeros = index.initializers.get(zero)
        if zeros is not None and len(zeros.dims):
            scale = index.add_constant("ones", np.ones(tuple(zeros.dims), np.float32))
        names_in = [node.input[place], scale, *([zero] if zero else [])]
        said, made = _real(index, node, names_in, axis)
        nodes += said
        names.append(made)
    product, near = index.fresh("product"), index.fresh("product_rounded")
    kind = "Conv" if is_conv else "MatMul"
    return [
        *nodes,
        helper.make_node(kind, names, [product], name=node.name, **_attributes(node)),
        helper.make_node("Round", [product], [near]),
        helper.make_node("Cast", [near], list(node.output), to=TensorProto.INT32),
    ]


_INTEGER_LAYERS = {
    "ConvInteger": _whole,
    "MatMulInteger": _whole,
    "QLinearConv": _linear_conv,
    "QLinearMatMul": _linear_matmul,
}
