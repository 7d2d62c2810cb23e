"""Unrolling of If, Loop and Scan whose condition or number of iterations is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, helper

from edgekit.conversion.onnx_to_tflite.graph_state import GraphState
from edgekit.conversion.onnx_to_tflite.sequences import build_unsqueeze
from edgekit.errors import PassRefused
from edgekit.onnx_graph.graph_index import read_attribute
from edgekit.onnx_graph.io import iter_inner_graphs

# More iterations make a graph too large to convert and run in reasonable time.
_MOST_ROUNDS = 1024
_UNBOUNDED = 2**63 - 1


def inline_branch(walk: GraphState, node: NodeProto, *, taken: bool) -> list[NodeProto]:
    """Return the nodes of the branch that an If with a known condition takes."""
    wanted = "then_branch" if taken else "else_branch"
    graph = next(a.g for a in node.attribute if a.name == wanted)
    nodes, results = copy_nodes(walk, graph, {})
    return [*nodes, *_build_identities(results, list(node.output))]


def copy_nodes(
    walk: GraphState, graph: GraphProto, given: Mapping[str, str]
) -> tuple[list[NodeProto], list[str]]:
    """Copy the nodes of a subgraph under new names; also return the new names of its outputs.

    Args:
        walk: Receives the subgraph's initializers.
        graph: The subgraph.
        given: Outer values for the inputs of the subgraph, by inner name.
    """
    names = dict(given)
    for tensor in graph.initializer:
        if tensor.name not in names:
            names[tensor.name] = walk.fresh(tensor.name)
            stored = type(tensor)()
            stored.CopyFrom(tensor)
            stored.name = names[tensor.name]
            walk.add(stored)
    for node in graph.node:
        names |= {name: walk.fresh(name) for name in node.output if name}
    nodes = [_rename_node(node, names) for node in graph.node]
    return nodes, [names.get(value.name, value.name) for value in graph.output]


def _rename_node(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    for place, name in enumerate(made.input):
        made.input[place] = names.get(name, name)
    for place, name in enumerate(made.output):
        made.output[place] = names.get(name, name)
    for graph in iter_inner_graphs(made):
        hidden = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        hidden |= {name for each in graph.node for name in each.output}
        outer = {name: new for name, new in names.items() if name not in hidden}
        nodes = [_rename_node(each, outer) for each in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)
    return made


def _build_identities(sources: list[str], targets: list[str]) -> list[NodeProto]:
    return [
        helper.make_node("Identity", [source], [target])
        for source, target in zip(sources, targets, strict=True)
        if target
    ]


@dataclass(kw_only=True)
class LoopRounds:
    """A Loop or Scan between two of its iterations.

    Args:
        node: The Loop or Scan.
        body: Its body graph.
        count: Maximum number of iterations.
        state: Names of the loop-carried values (recurrent state).
        scanned: Name, axis and direction of each input read entry by entry (Scan).
        results: For each stacked output, the names of the values that the iterations add to it.
        stacked: Axis and direction in which each of those outputs is stacked.
        condition: Name of the condition for another iteration; empty for always.
        done: Iterations so far.
    """

    node: NodeProto
    body: GraphProto
    count: int
    state: list[str]
    scanned: list[tuple[str, int, bool]] = field(default_factory=list)
    results: list[list[str]]
    stacked: list[tuple[int, bool]]
    condition: str = ""
    done: int = 0

    def next(self, walk: GraphState) -> list[NodeProto | LoopRounds]:
        """Return the nodes of the next iteration and this loop again, or those of its end."""
        if self.done >= self.count or not self._has_next(walk):
            return [*self._finish(walk)]
        if self.done >= _MOST_ROUNDS:
            raise PassRefused(
                f"{self.node.op_type} {self.node.name or self.node.output[0]}"
                f" has more than {_MOST_ROUNDS} iterations",
                hint="export the model for shorter inputs, or run it with onnxruntime",
            )
        return self._unroll_round(walk)

    def _has_next(self, walk: GraphState) -> bool:
        if not self.condition:
            return True
        known = walk.value(self.condition)
        if known is None:
            raise PassRefused(
                f"{self.node.op_type} {self.node.name or self.node.output[0]} has an exit "
                "condition that depends on the data",
                hint="export the model with a fixed number of iterations, or run it with "
                "onnxruntime",
            )
        return bool(known.any())

    def _unroll_round(self, walk: GraphState) -> list[NodeProto | LoopRounds]:
        before: list[NodeProto] = []
        inner = [value.name for value in self.body.input]
        if self.node.op_type == "Loop":
            number = walk.fresh("round")
            walk.store(number, np.asarray(self.done, np.int64))
            condition = walk.fresh("condition")
            walk.store(condition, np.asarray(True))
            given = [number, condition, *self.state]
        else:
            before, read = self._read_entries(walk)
            given = [*self.state, *read]
        nodes, made = copy_nodes(walk, self.body, dict(zip(inner, given, strict=True)))
        if self.node.op_type == "Loop":
            self.condition, made = made[0], made[1:]
        count = len(self.state)
        self.state = made[:count]
        for place, name in enumerate(made[count:]):
            self.results[place].append(name)
        self.done += 1
        return [*before, *nodes, self]

    def _read_entries(self, walk: GraphState) -> tuple[list[NodeProto], list[str]]:
        nodes, names = [], []
        for source, axis, backward in self.scanned:
            place, name = walk.fresh("place"), walk.fresh(source)
            number = self.count - 1 - self.done if backward else self.done
            walk.store(place, np.asarray(number, np.int64))
            nodes.append(helper.make_node("Gather", [source, place], [name], axis=axis))
            names.append(name)
        return nodes, names

    def _finish(self, walk: GraphState) -> list[NodeProto]:
        count = len(self.state)
        nodes = _build_identities(self.state, list(self.node.output[:count]))
        for place, target in enumerate(self.node.output[count:]):
            if not target:
                continue
            axis, backward = self.stacked[place]
            parts = self.results[place][::-1] if backward else self.results[place]
            nodes += self._stack(walk, parts, axis, target)
        return nodes

    def _stack(self, walk: GraphState, parts: list[str], axis: int, target: str) -> list[NodeProto]:
        if not parts:
            raise PassRefused(
                f"{self.node.op_type} {self.node.name or target} has no iterations, so its scan "
                "outputs have no shape",
                hint="remove it before export",
            )
        wider = [walk.fresh(part) for part in parts]
        where = walk.fresh("axis")
        walk.store(where, np.asarray([axis], np.int64))
        widening = [
            build_unsqueeze(walk, *pair, where, axis) for pair in zip(parts, wider, strict=True)
        ]
        return [*widening, helper.make_node("Concat", wider, [target], axis=axis)]


def plan_rounds(walk: GraphState, node: NodeProto) -> LoopRounds | None:
    """Prepare a loop for unrolling; ``None`` where its number of iterations is not known."""
    body = next(a.g for a in node.attribute if a.name == "body")
    return _plan_loop(walk, node, body) if node.op_type == "Loop" else _plan_scan(walk, node, body)


def _plan_loop(walk: GraphState, node: NodeProto, body: GraphProto) -> LoopRounds | None:
    count = _UNBOUNDED
    if node.input[0]:
        known = walk.value(node.input[0])
        if known is None:
            return None
        count = int(known.ravel()[0])
    state = list(node.input[2:])
    stacked = len(node.output) - len(state)
    return LoopRounds(
        node=node,
        body=body,
        count=count,
        state=state,
        results=[[] for _ in range(stacked)],
        stacked=[(0, False)] * stacked,
        condition=node.input[1] if len(node.input) > 1 else "",
    )


def _plan_scan(walk: GraphState, node: NodeProto, body: GraphProto) -> LoopRounds | None:
    many = int(str(read_attribute(node, "num_scan_inputs", 0)))
    if walk.opset < 9:
        return None
    state, sources = list(node.input[:-many]), list(node.input[-many:])
    axes = _read_integers(node, "scan_input_axes", many)
    backward = _read_integers(node, "scan_input_directions", many)
    shape = walk.shape(sources[0])
    if shape is None:
        return None
    stacked = len(node.output) - len(state)
    ways = zip(
        _read_integers(node, "scan_output_axes", stacked),
        _read_integers(node, "scan_output_directions", stacked),
        strict=True,
    )
    return LoopRounds(
        node=node,
        body=body,
        count=shape[axes[0]],
        state=state,
        scanned=[(s, a, bool(b)) for s, a, b in zip(sources, axes, backward, strict=True)],
        results=[[] for _ in range(stacked)],
        stacked=[(axis, bool(back)) for axis, back in ways],
    )


def _read_integers(node: NodeProto, name: str, count: int) -> list[int]:
    found = next((list(a.ints) for a in node.attribute if a.name == name), [])
    return found or [0] * count
