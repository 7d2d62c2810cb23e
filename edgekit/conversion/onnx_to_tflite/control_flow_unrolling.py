"""Unrolling of If, Loop and Scan whose condition or number of iterations is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, helper

from edgekit.conversion.onnx_to_tflite.evaluation_context import EvaluationContext
from edgekit.conversion.onnx_to_tflite.sequences import build_unsqueeze
from edgekit.errors import PassRefused
from edgekit.onnx_graph.graph_index import read_attribute
from edgekit.onnx_graph.io import iter_inner_graphs

# More iterations make a graph too large to convert and run in reasonable time.
_MAX_ITERATIONS = 1024
_UNBOUNDED = 2**63 - 1


def inline_branch(
    context: EvaluationContext, node: NodeProto, *, condition: bool
) -> list[NodeProto]:
    """Return the nodes of the branch that an If with a known condition takes."""
    branch = "then_branch" if condition else "else_branch"
    graph = next(a.g for a in node.attribute if a.name == branch)
    nodes, results = copy_nodes(context, graph, {})
    return [*nodes, *_build_identities(results, list(node.output))]


def copy_nodes(
    context: EvaluationContext, graph: GraphProto, input_names: Mapping[str, str]
) -> tuple[list[NodeProto], list[str]]:
    """Copy the nodes of a subgraph under new names; also return the new names of its outputs.

    Args:
        context: Receives the subgraph's initializers.
        graph: The subgraph.
        input_names: Outer values for the inputs of the subgraph, by inner name.
    """
    names = dict(input_names)
    for tensor in graph.initializer:
        if tensor.name not in names:
            names[tensor.name] = context.fresh(tensor.name)
            stored = type(tensor)()
            stored.CopyFrom(tensor)
            stored.name = names[tensor.name]
            context.add(stored)
    for node in graph.node:
        names |= {name: context.fresh(name) for name in node.output if name}
    nodes = [_rename_node(node, names) for node in graph.node]
    return nodes, [names.get(value.name, value.name) for value in graph.output]


def _rename_node(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    renamed = NodeProto()
    renamed.CopyFrom(node)
    for position, name in enumerate(renamed.input):
        renamed.input[position] = names.get(name, name)
    for position, name in enumerate(renamed.output):
        renamed.output[position] = names.get(name, name)
    for graph in iter_inner_graphs(renamed):
        hidden = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        hidden |= {name for inner_node in graph.node for name in inner_node.output}
        outer = {name: new for name, new in names.items() if name not in hidden}
        nodes = [_rename_node(inner_node, outer) for inner_node in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)
    return renamed


def _build_identities(sources: list[str], targets: list[str]) -> list[NodeProto]:
    return [
        helper.make_node("Identity", [source], [target])
        for source, target in zip(sources, targets, strict=True)
        if target
    ]


@dataclass(kw_only=True)
class LoopUnroller:
    """A Loop or Scan between two of its iterations.

    Args:
        node: The Loop or Scan.
        body: Its body graph.
        max_iterations: Maximum number of iterations.
        state: Names of the loop-carried values (recurrent state).
        scan_inputs: Name, axis and direction of each input read entry by entry (Scan).
        stacked_names: For each stacked output, the values that the iterations add to it.
        stack_axes: Axis and direction in which each of those outputs is stacked.
        condition: Name of the condition for another iteration; empty for always.
        iterations_done: Iterations so far.
    """

    node: NodeProto
    body: GraphProto
    max_iterations: int
    state: list[str]
    scan_inputs: list[tuple[str, int, bool]] = field(default_factory=list)
    stacked_names: list[list[str]]
    stack_axes: list[tuple[int, bool]]
    condition: str = ""
    iterations_done: int = 0

    def build_next(self, context: EvaluationContext) -> list[NodeProto | LoopUnroller]:
        """Return the nodes of the next iteration and this loop again, or those of its end."""
        if self.iterations_done >= self.max_iterations or not self._has_next(context):
            return [*self._finish(context)]
        if self.iterations_done >= _MAX_ITERATIONS:
            raise PassRefused(
                f"{self.node.op_type} {self.node.name or self.node.output[0]}"
                f" has more than {_MAX_ITERATIONS} iterations",
                hint="export the model for shorter inputs, or run it with onnxruntime",
            )
        return self._unroll_iteration(context)

    def _has_next(self, context: EvaluationContext) -> bool:
        if not self.condition:
            return True
        condition = context.value(self.condition)
        if condition is None:
            raise PassRefused(
                f"{self.node.op_type} {self.node.name or self.node.output[0]} has an exit "
                "condition that depends on the data",
                hint="export the model with a fixed number of iterations, or run it with "
                "onnxruntime",
            )
        return bool(condition.any())

    def _unroll_iteration(self, context: EvaluationContext) -> list[NodeProto | LoopUnroller]:
        before: list[NodeProto] = []
        inner = [value.name for value in self.body.input]
        if self.node.op_type == "Loop":
            iteration = context.fresh("round")
            context.store(iteration, np.asarray(self.iterations_done, np.int64))
            condition = context.fresh("condition")
            context.store(condition, np.asarray(True))
            body_inputs = [iteration, condition, *self.state]
        else:
            before, entries = self._read_entries(context)
            body_inputs = [*self.state, *entries]
        nodes, outputs = copy_nodes(context, self.body, dict(zip(inner, body_inputs, strict=True)))
        if self.node.op_type == "Loop":
            self.condition, outputs = outputs[0], outputs[1:]
        count = len(self.state)
        self.state = outputs[:count]
        for position, name in enumerate(outputs[count:]):
            self.stacked_names[position].append(name)
        self.iterations_done += 1
        return [*before, *nodes, self]

    def _read_entries(self, context: EvaluationContext) -> tuple[list[NodeProto], list[str]]:
        nodes, names = [], []
        for source, axis, backward in self.scan_inputs:
            index, name = context.fresh("place"), context.fresh(source)
            entry = (
                self.max_iterations - 1 - self.iterations_done if backward else self.iterations_done
            )
            context.store(index, np.asarray(entry, np.int64))
            nodes.append(helper.make_node("Gather", [source, index], [name], axis=axis))
            names.append(name)
        return nodes, names

    def _finish(self, context: EvaluationContext) -> list[NodeProto]:
        count = len(self.state)
        nodes = _build_identities(self.state, list(self.node.output[:count]))
        for position, target in enumerate(self.node.output[count:]):
            if not target:
                continue
            axis, backward = self.stack_axes[position]
            parts = self.stacked_names[position][::-1] if backward else self.stacked_names[position]
            nodes += self._stack(context, parts, axis, target)
        return nodes

    def _stack(
        self, context: EvaluationContext, parts: list[str], axis: int, target: str
    ) -> list[NodeProto]:
        if not parts:
            raise PassRefused(
                f"{self.node.op_type} {self.node.name or target} has no iterations, so its scan "
                "outputs have no shape",
                hint="remove it before export",
            )
        unsqueezed = [context.fresh(part) for part in parts]
        axes = context.fresh("axis")
        context.store(axes, np.asarray([axis], np.int64))
        unsqueeze_nodes = [
            build_unsqueeze(context, *pair, axes, axis)
            for pair in zip(parts, unsqueezed, strict=True)
        ]
        return [*unsqueeze_nodes, helper.make_node("Concat", unsqueezed, [target], axis=axis)]


def prepare_unrolling(context: EvaluationContext, node: NodeProto) -> LoopUnroller | None:
    """Prepare a loop for unrolling; ``None`` where its number of iterations is not known."""
    body = next(a.g for a in node.attribute if a.name == "body")
    return (
        _prepare_loop(context, node, body)
        if node.op_type == "Loop"
        else _prepare_scan(context, node, body)
    )


def _prepare_loop(
    context: EvaluationContext, node: NodeProto, body: GraphProto
) -> LoopUnroller | None:
    count = _UNBOUNDED
    if node.input[0]:
        stated = context.value(node.input[0])
        if stated is None:
            return None
        count = int(stated.ravel()[0])
    state = list(node.input[2:])
    stacked = len(node.output) - len(state)
    return LoopUnroller(
        node=node,
        body=body,
        max_iterations=count,
        state=state,
        stacked_names=[[] for _ in range(stacked)],
        stack_axes=[(0, False)] * stacked,
        condition=node.input[1] if len(node.input) > 1 else "",
    )


def _prepare_scan(
    context: EvaluationContext, node: NodeProto, body: GraphProto
) -> LoopUnroller | None:
    scan_count = int(str(read_attribute(node, "num_scan_inputs", 0)))
    if context.opset < 9:
        return None
    state, sources = list(node.input[:-scan_count]), list(node.input[-scan_count:])
    axes = _read_integers(node, "scan_input_axes", scan_count)
    backward = _read_integers(node, "scan_input_directions", scan_count)
    shape = context.shape(sources[0])
    if shape is None:
        return None
    stacked = len(node.output) - len(state)
    output_axes = zip(
        _read_integers(node, "scan_output_axes", stacked),
        _read_integers(node, "scan_output_directions", stacked),
        strict=True,
    )
    return LoopUnroller(
        node=node,
        body=body,
        max_iterations=shape[axes[0]],
        state=state,
        scan_inputs=[(s, a, bool(b)) for s, a, b in zip(sources, axes, backward, strict=True)],
        stacked_names=[[] for _ in range(stacked)],
        stack_axes=[(axis, bool(back)) for axis, back in output_axes],
    )


def _read_integers(node: NodeProto, name: str, count: int) -> list[int]:
    integers = next((list(a.ints) for a in node.attribute if a.name == name), [])
    return integers or [0] * count
