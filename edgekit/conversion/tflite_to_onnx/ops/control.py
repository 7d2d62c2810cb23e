"""Conversion rules of WHILE and IF; their graphs become ONNX subgraphs."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_onnx_type
from edgekit.tflite.ir import LiteGraph, Op


def while_loop(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert WHILE to Loop; the condition is computed before the loop and after each iteration."""
    condition = _find_inner_graph(builder, op, "cond_subgraph_index")
    body = _find_inner_graph(builder, op, "body_subgraph_index")
    state = [builder.plain(op, i) for i in range(len(op.inputs))]
    first = _to_scalar(builder, _inline_graph(builder, condition, state)[0])
    graph = _build_loop_body(builder, condition, body)
    result = builder.nodes("Loop", ["", first, *state], len(state), {"body": graph})
    for i, name in enumerate(result):
        builder.bind(op, name, output=i)


def if_branch(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert IF to If."""
    inputs = [builder.plain(op, i) for i in range(1, len(op.inputs))]
    graphs = {}
    for attribute in ("then", "else"):
        child = builder.build_child(_find_inner_graph(builder, op, f"{attribute}_subgraph_index"))
        graphs[f"{attribute}_branch"] = _build_graph(
            child, [], _inline_graph(child, child.graph, inputs), []
        )
    condition = _to_scalar(builder, builder.plain(op, 0))
    result = builder.nodes("If", [condition], len(op.outputs), graphs)
    for i, name in enumerate(result):
        builder.bind(op, name, output=i)


def _find_inner_graph(builder: OnnxGraphBuilder, op: Op, option: str) -> LiteGraph:
    return builder.inner[int(op.options[option]) - 1]


def _inline_graph(builder: OnnxGraphBuilder, graph: LiteGraph, inputs: Sequence[str]) -> list[str]:
    """Add the operators of a graph to the current one; return the names of its outputs."""
    child = builder.build_child(graph)
    child.built_nodes = builder.built_nodes
    for tensor, name in zip(graph.inputs.values(), inputs, strict=True):
        child.record_value(tensor, name)
    child.run()
    return [child.read(t) for t in graph.outputs.values()]


def _to_scalar(builder: OnnxGraphBuilder, name: str) -> str:
    """Reshape a boolean that may have axes of size 1 to a scalar."""
    return builder.node("Reshape", [name, builder.ints()])


def _build_loop_body(
    builder: OnnxGraphBuilder, condition: LiteGraph, body: LiteGraph
) -> GraphProto:
    """Build the body of a Loop: (iteration, condition, state) to (condition, state)."""
    iteration = builder.build_child(body)
    number, goes_on = (builder.model_builder.unique(f"loop/{name}") for name in ("turn", "goes_on"))
    inputs = [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
    ]
    for name, tensor in body.inputs.items():
        inner_name = builder.model_builder.unique(f"loop/{name}")
        inputs.append(helper.make_tensor_value_info(inner_name, get_onnx_type(tensor), None))
    names = [value.name for value in inputs[2:]]
    state = _inline_graph(iteration, body, names)
    after = _to_scalar(iteration, _inline_graph(iteration, condition, state)[0])
    return _build_graph(iteration, inputs, state, [after])


def _build_graph(
    child: OnnxGraphBuilder,
    inputs: Sequence[ValueInfoProto],
    results: Sequence[str],
    first: list[str],
) -> GraphProto:
    """Build a subgraph in which each result is copied, so that every output is a separate value."""
    outputs = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in first]
    for name, tensor in zip(results, child.graph.outputs.values(), strict=True):
        copy = child.node("Identity", [name])
        outputs.append(helper.make_tensor_value_info(copy, get_onnx_type(tensor), None))
    return helper.make_graph(child.built_nodes, "inner", list(inputs), outputs)


RULES: dict[str, Rule] = {"IF": if_branch, "WHILE": while_loop}
