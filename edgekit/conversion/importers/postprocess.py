"""Uniform names, axes and operators of converted graphs, whatever the tool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, inliner, numpy_helper

from edgekit.onnx_graph.io import iter_graphs

BATCH = "batch"


def standardize_graph(
    proto: ModelProto, *, inputs: Sequence[str], outputs: Sequence[str]
) -> ModelProto:
    """Rename a graph's inputs and outputs, and remove the differences between tools.

    Metadata of the tools (source locations, shapes of inner values) is removed, so that the same
    model gives the same bytes. Free first axes are named ``batch``. ``Erfc``, which onnxruntime
    lacks, becomes ``1 - Erf``.

    Args:
        proto: The graph; changed unless it has local functions.
        inputs: Names of the inputs in the graph's order.
        outputs: Names of the outputs in the graph's order.
    """
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    for graph in iter_graphs(proto.graph):
        _rewrite_erfc(graph)
    _separate_outputs(proto.graph)
    _rename(proto.graph, _plan_names(proto.graph, make_unique(inputs), make_unique(outputs)))
    for value in (*proto.graph.input, *proto.graph.output):
        _name_axes(value)
    _remove_metadata(proto)
    _drop_unused_opsets(proto)
    return proto


def make_unique(names: Sequence[str]) -> list[str]:
    """Make names unique by adding a number to those that occur before."""
    unique: list[str] = []
    for name in names:
        new, n = name, 1
        while new in unique:
            new, n = f"{name}_{n}", n + 1
        unique.append(new)
    return unique


def _rewrite_erfc(graph: GraphProto) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        one, erf = f"{node.output[0]}/one", f"{node.output[0]}/erf"
        graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), one))
        nodes.append(helper.make_node("Erf", list(node.input), [erf], name=node.name))
        nodes.append(helper.make_node("Sub", [one, erf], list(node.output), name=f"{node.name}/of"))
    if len(nodes) != len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def _separate_outputs(graph: GraphProto) -> None:
    """Make each output a value of its own: not an input, a constant or another output."""
    input_names = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    for output in graph.output:
        if output.name in input_names:
            copy_name = f"{output.name}/out{len(input_names)}"
            graph.node.append(
                helper.make_node("Identity", [output.name], [copy_name], name=copy_name)
            )
            output.name = copy_name
        input_names.add(output.name)


def _plan_names(graph: GraphProto, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Return the new name of each value; inner values with a taken name are renamed."""
    stored = {t.name for t in graph.initializer}
    input_names = [v.name for v in graph.input if v.name not in stored]
    new = dict(zip(input_names, inputs, strict=True))
    new |= dict(zip((v.name for v in graph.output), outputs, strict=True))
    clash = set(inputs) & set(outputs)
    new = {k: f"{v}_out" if v in clash and k not in input_names else v for k, v in new.items()}
    inner = {
        name
        for subgraph in iter_graphs(graph)
        for node in subgraph.node
        for name in (*node.input, *node.output)
    } | {t.name for subgraph in iter_graphs(graph) for t in subgraph.initializer}
    moved_names = {name: f"{name}/inner" for name in set(new.values()) & inner if name not in new}
    return new | moved_names


def _rename(graph: GraphProto, new: dict[str, str]) -> None:
    for subgraph in iter_graphs(graph):
        for value in (*subgraph.input, *subgraph.output, *subgraph.initializer):
            value.name = new.get(value.name, value.name)
        for node in subgraph.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]


def _name_axes(value: ValueInfoProto) -> None:
    for i, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            continue
        if i == 0:
            dim.dim_param = BATCH
        elif not dim.dim_param or dim.dim_param.startswith("unk__"):
            dim.dim_param = f"{value.name}_{i}"


def _remove_metadata(proto: ModelProto) -> None:
    _clear_fields(proto)
    for graph in iter_graphs(proto.graph):
        del graph.value_info[:]
        _clear_fields(graph)
        for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            _clear_fields(part)


def _clear_fields(part: ModelProto | GraphProto | NodeProto | ValueInfoProto) -> None:
    part.ClearField("doc_string")
    part.ClearField("metadata_props")


def _drop_unused_opsets(proto: ModelProto) -> None:
    """Keep one opset entry for each domain that a node uses."""
    used = {
        "",
        *(_normalize_domain(node.domain) for g in iter_graphs(proto.graph) for node in g.node),
    }
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = _normalize_domain(entry.domain)
        versions[domain] = max(entry.version, versions.get(domain, 0))
    del proto.opset_import[:]
    used_opsets = (onnx.helper.make_opsetid(d, v) for d, v in sorted(versions.items()) if d in used)
    proto.opset_import.extend(used_opsets)


def _normalize_domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
