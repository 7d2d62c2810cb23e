"""Ancestors and descendants of values, and the part of a model that computes them."""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto, NodeProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_inner_graphs
from edgekit.onnx_graph.runs.weight_offload import copy_without_weights


def collect_reads(node: NodeProto) -> set[str]:
    """Collect every name that a node reads, its inner graphs included."""
    names = {name for name in node.input if name}
    for graph in iter_inner_graphs(node):
        names |= {value.name for value in graph.output}
        for inner_node in graph.node:
            names |= collect_reads(inner_node)
    return names


def find_upstream(
    index: GraphIndex, names: Collection[str], *, stop_at: Collection[str] = ()
) -> set[str]:
    """Return the named values and all their ancestors, back to the given values.

    Args:
        index: the graph.
        names: the values to start from.
        stop_at: values whose ancestors are not visited.
    """
    ancestors: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in ancestors:
            continue
        ancestors.add(name)
        if name in index.producer and name not in stop_at:
            waiting.extend(collect_reads(index.producer[name]))
    return ancestors


def find_downstream(
    index: GraphIndex, name: str, *, ignored_nodes: Collection[NodeProto] = ()
) -> set[str]:
    """Return a value and all its descendants.

    Args:
        index: the graph.
        name: the value to start from.
        ignored_nodes: nodes that are ignored.
    """
    ignored_ids = {id(node) for node in ignored_nodes}
    descendants = {name}
    for node in index.graph.node:
        if id(node) not in ignored_ids and not descendants.isdisjoint(collect_reads(node)):
            descendants.update(output for output in node.output if output)
    return descendants


def extract_subgraph(
    proto: ModelProto, names: Collection[str], *, available: Collection[str] = ()
) -> ModelProto:
    """Extract the part of a model that computes the given values; all inputs are kept.

    Args:
        proto: the model; not changed.
        names: values of its main graph. Those that are model outputs are outputs of the part.
        available: values that need not be computed.
    """
    index = GraphIndex(proto)
    needed_names = find_upstream(index, names, stop_at=available)
    part = copy_without_weights(proto)
    nodes = [
        n for n in proto.graph.node if not (needed_names - set(available)).isdisjoint(n.output)
    ]
    del part.graph.node[:]
    part.graph.node.extend(nodes)
    outputs = [value for value in proto.graph.output if value.name in names]
    del part.graph.output[:]
    part.graph.output.extend(outputs)
    if not nodes:
        _add_output(part, index)
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in needed_names)
    return part


def _add_output(part: ModelProto, index: GraphIndex) -> None:
    """Add an output if only inputs are requested: the runtime rejects a graph without one."""
    model_input = next(v for v in index.graph.input if v.name not in index.initializers)
    copy_name = index.fresh(f"{model_input.name}_same")
    part.graph.node.append(helper.make_node("Identity", [model_input.name], [copy_name]))
    part.graph.output.add().CopyFrom(model_input)
    part.graph.output[-1].name = copy_name
