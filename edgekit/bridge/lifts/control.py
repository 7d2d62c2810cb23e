"""Conversion rules of WHILE and IF; their graphs become ONNX subgraphs."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from edgekit.bridge.graph import LiteGraph, Op
from edgekit.bridge.lifted import onnx_type
from edgekit.bridge.lifting import Lifting
from edgekit.bridge.lifts.activations import Rule


def while_loop(lifting: Lifting, op: Op) -> None:
    """Convert WHILE to Loop; the condition is computed before the loop and after each iteration."""
    condition = _inner(lifting, op, "cond_subgraph_index")
    body = _inner(lifting, op, "body_subgraph_index")
    state = [lifting.plain(op, i) for i in range(len(op.inputs))]
    first = _scalar(lifting, _inlined(lifting, condition, state)[0])
    graph = _turn(lifting, condition, body)
    made = lifting.nodes("Loop", ["", first, *state], len(state), {"body": graph})
    for i, name in enumerate(made):
        lifting.bind(op, name, output=i)


def if_branch(lifting: Lifting, op: Op) -> None:
    """Convert IF to If."""
    given = [lifting.plain(op, i) for i in range(1, len(op.inputs))]
    graphs = {}
    for attribute in ("then", "else"):
        child = lifting.child(_inner(lifting, op, f"{attribute}_subgraph_index"))
        graphs[f"{attribute}_branch"] = _graph(child, [], _inlined(child, child.graph, given), [])
    condition = _scalar(lifting, lifting.plain(op, 0))
    made = lifting.nodes("If", [condition], len(op.outputs), graphs)
    for i, name in enumerate(made):
        lifting.bind(op, name, output=i)


def _inner(lifting: Lifting, op: Op, option: str) -> LiteGraph:
    return lifting.inner[int(op.options[option]) - 1]


def _inlined(lifting: Lifting, graph: LiteGraph, inputs: Sequence[str]) -> list[str]:
    """Add the operators of a graph to the current one; return the names of its outputs."""
    child = lifting.child(graph)
    child.nodes_made = lifting.nodes_made
    for tensor, name in zip(graph.inputs.values(), inputs, strict=True):
        child.hold(tensor, name)
    child.run()
    return [child.read(t) for t in graph.outputs.values()]


def _scalar(lifting: Lifting, name: str) -> str:
    """Reshape a boolean that may have axes of size 1 to a scalar."""
    return lifting.node("Reshape", [name, lifting.ints()])


def _turn(lifting: Lifting, condition: LiteGraph, body: LiteGraph) -> GraphProto:
    """Build the body of a Loop: (iteration, condition, state) to (condition, state)."""
    turn = lifting.child(body)
    number, goes_on = (lifting.written.unique(f"loop/{name}") for name in ("turn", "goes_on"))
    inputs = [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
    ]
    for name, tensor in body.inputs.items():
        fed = lifting.written.unique(f"loop/{name}")
        inputs.append(helper.make_tensor_value_info(fed, onnx_type(tensor), None))
    names = [value.name for value in inputs[2:]]
    state = _inlined(turn, body, names)
    after = _scalar(turn, _inlined(turn, condition, state)[0])
    return _graph(turn, inputs, state, [after])


def _graph(
    child: Lifting, inputs: Sequence[ValueInfoProto], results: Sequence[str], first: list[str]
) -> GraphProto:
    """Build a subgraph in which each result is copied, so that every output is a separate value."""
    outputs = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in first]
    for name, tensor in zip(results, child.graph.outputs.values(), strict=True):
        copy = child.node("Identity", [name])
        outputs.append(helper.make_tensor_value_info(copy, onnx_type(tensor), None))
    return helper.make_graph(child.nodes_made, "inner", list(inputs), outputs)


LIFTS: dict[str, Rule] = {"IF": if_branch, "WHILE": while_loop}
