"""Names of values in a rewritten graph: original names restored, added names made unique."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from onnx import GraphProto, ModelProto

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_graphs, iter_inner_graphs


def restore_names(original: ModelProto, changed: ModelProto) -> None:
    """Restore the names of constants in ``changed`` to those in ``original``, in place.

    Nodes are matched by their first output. Only constants with one reader are renamed, to names
    that are not used any more; constants that nothing reads are dropped.

    Args:
        original: the model before the rewriting; not changed.
        changed: the rewritten model.
    """
    before = {node.output[0]: node for node in original.graph.node if node.output}
    index = GraphIndex(changed)
    index.drop_unread_constants()
    used_names = collect_names(changed)
    for node in changed.graph.node:
        old_names = before.get(node.output[0]) if node.output else None
        for position, (name, old) in enumerate(
            zip(node.input, old_names.input if old_names else (), strict=False)
        ):
            if old in used_names or name not in index.initializers or not index.only_reader(name):
                continue
            used_names.add(old)
            index.initializers[name].name = node.input[position] = old


def collect_names(proto: ModelProto) -> set[str]:
    """Collect the names of all values, inner graphs included."""
    return {name for graph in iter_graphs(proto.graph) for name in _iter_names(graph)}


def rename_added(proto: ModelProto, original_names: Collection[str]) -> None:
    """Give each value that is not among the known ones a unique name, in place.

    onnxruntime uses the same few names for the nodes that it adds to a graph and to each of its
    branches. The ONNX checker refuses duplicates, and onnxruntime fails on a graph that has these
    names already.

    Args:
        proto: the model as onnxruntime rewrote it.
        original_names: names that are kept.
    """
    _rename(proto.graph, {}, set(original_names), set(original_names) | collect_names(proto))


def _rename(
    graph: GraphProto, outer: Mapping[str, str], original_names: set[str], used_names: set[str]
) -> None:
    """Rename the unknown values of a graph and its subgraphs; extend ``used_names``."""
    defined = [tensor.name for tensor in graph.initializer]
    defined += [value.name for value in graph.input]
    defined += [name for node in graph.node for name in node.output]
    new = dict(outer)
    for name in dict.fromkeys(defined):
        new.pop(name, None)  # this value hides an outer one of that name
        if name and name not in original_names:
            new[name] = _make_fresh_name(name, used_names)
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.name = new.get(item.name, item.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = new.get(name, name)
        for inner in iter_inner_graphs(node):
            _rename(inner, new, original_names, used_names)


def _make_fresh_name(stem: str, used_names: set[str]) -> str:
    number = 1
    while f"{stem}@{number}" in used_names:
        number += 1
    used_names.add(f"{stem}@{number}")
    return f"{stem}@{number}"


def _iter_names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
