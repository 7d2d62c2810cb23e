"""Operators said by others that have a rule: functions by their bodies, integer layers as QDQ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, inliner

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import all_graphs

_STANDARD = ("", "ai.onnx")
_BODIES = "edgekit.bodies"


def spelled_out(proto: ModelProto, rules: Iterable[str]) -> ModelProto:
    """A model in which operators without a rule are said by others, where ONNX says how.

    Args:
        proto: not changed.
        rules: the operators that have a rule.
    """
    made = inliner.inline_local_functions(proto) if proto.functions else ModelProto()
    if not proto.functions:
        made.CopyFrom(proto)
    known = set(rules)
    if any(node.op_type in _INTEGER_LAYERS for node in made.graph.node):
        _say_integer_layers(made)
    return _bodies_inlined(made, known)


def _bodies_inlined(proto: ModelProto, known: set[str]) -> ModelProto:
    """A model without the operators that have no rule but a body that ONNX defines."""
    opset = max((o.version for o in proto.opset_import if o.domain in _STANDARD), default=1)
    unknown = {
        node.op_type
        for graph in all_graphs(proto.graph)
        for node in graph.node
        if node.domain in _STANDARD and node.op_type not in known and onnx.defs.has(node.op_type)
    }
    schemas = {name: onnx.defs.get_schema(name, opset) for name in sorted(unknown)}
    plain = [("", name) for name, schema in schemas.items() if schema.has_function]
    if plain:
        proto = inliner.inline_selected_functions(proto, plain, inline_schema_functions=True)
    chosen = {k: s for k, s in schemas.items() if s.has_context_dependent_function}
    if not chosen:
        return proto
    proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    types = _types(proto)
    for place, node in enumerate(proto.graph.node):
        schema = chosen.get(node.op_type) if node.domain in _STANDARD else None
        if schema is not None and all(name in types for name in node.input if name):
            _call_body(proto, node, schema, types, f"body_{place}")
    return inliner.inline_local_functions(proto)


def _types(proto: ModelProto) -> dict[str, TypeProto]:
    graph = proto.graph
    found = {v.name: v.type for v in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    return found


def _call_body(
    proto: ModelProto,
    node: NodeProto,
    schema: onnx.defs.OpSchema,
    types: Mapping[str, TypeProto],
    name: str,
) -> None:
    """Let a node call a function of the model that is its body for the types of its inputs."""
    read = [types.get(each, TypeProto()).SerializeToString() for each in node.input]
    body = FunctionProto()
    body.ParseFromString(schema.get_context_dependent_function(node.SerializeToString(), read))
    body.domain, body.name = _BODIES, name
    proto.functions.append(body)
    node.domain, node.op_type = _BODIES, name
    if all(o.domain != _BODIES for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(_BODIES, 1))


def _say_integer_layers(proto: ModelProto) -> None:
    """Say layers of integers, in place, as layers of reals between QDQ."""
    index = GraphIndex(proto)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        say = _INTEGER_LAYERS.get(node.op_type) if node.domain in _STANDARD else None
        nodes += [node] if say is None else say(index, node)
    index.replace_nodes(nodes)


def _real(
    index: GraphIndex, node: NodeProto, names: Sequence[str], axis: int
) -> tuple[NodeProto, str]:
    """The DequantizeLinear of a value, its scale and its zero point, and what it makes."""
    made = index.fresh(f"{names[0]}_real")
    said = helper.make_node(
        "DequantizeLinear", list(names), [made], name=f"{node.name}/{names[0]}", axis=axis
    )
    return said, made


def _attributes(node: NodeProto) -> dict[str, object]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _linear_conv(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    x, w = list(node.input[0:3]), list(node.input[3:6])
    image, image_name = _real(index, node, x, 1)
    weight, weight_name = _real(index, node, w, 0)
    nodes, names = [image, weight], [image_name, weight_name]
    if len(node.input) > 8 and node.input[8]:
        scales = index.float_constant(x[1]) * index.float_constant(w[1])
        scale = index.add_constant(f"{node.input[8]}_scale", np.asarray(scales, np.float32))
        zeros = np.zeros(np.shape(scales), np.int32)
        zero = index.add_constant(f"{node.input[8]}_zero", zeros)
        bias, bias_name = _real(index, node, [node.input[8], scale, zero], 0)
        nodes.append(bias)
        names.append(bias_name)
    return [*nodes, *_layer(index, node, "Conv", names, node.input[6:8])]


def _linear_matmul(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    left, left_name = _real(index, node, node.input[0:3], -2)
    right, right_name = _real(index, node, node.input[3:6], -1)
    names = [left_name, right_name]
    return [left, right, *_layer(index, node, "MatMul", names, node.input[6:8])]


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
        nodes.append(said)
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
