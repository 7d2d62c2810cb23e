"""Names of an edited graph: old ones kept, added ones told apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from onnx import GraphProto, ModelProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import all_graphs, inner_graphs


def old_names(original: ModelProto, changed: ModelProto) -> None:
    """Call what a node of ``changed`` reads as the same node of ``original`` called it, in place.

    Nodes are told by the first value that they make. Only constants that are read once are
    renamed, to names that nothing bears any more; constants that nothing reads are dropped.
    """
    before = {node.output[0]: node for node in original.graph.node if node.output}
    index = GraphIndex(changed)
    index.drop_unread_constants()
    taken = names_of(changed)
    for node in changed.graph.node:
        known = before.get(node.output[0]) if node.output else None
        for place, (name, old) in enumerate(
            zip(node.input, known.input if known else (), strict=False)
        ):
            if old in taken or name not in index.initializers or not index.only_reader(name):
                continue
            taken.add(old)
            index.initializers[name].name = node.input[place] = old


def names_of(proto: ModelProto) -> set[str]:
    """Every name of a value, branches included."""
    return {name for graph in all_graphs(proto.graph) for name in _names(graph)}


def rename_added(proto: ModelProto, known: Collection[str]) -> None:
    """Give each value that is not among the known ones a name of its own, in place.

    onnxruntime uses the same few names for what it adds to a graph and to each of its branches,
    which a checker refuses, and fails on a graph that bears them already.

    Args:
        proto: the model as onnxruntime rewrote it.
        known: names that stay.
    """
    _rename(proto.graph, {}, set(known), set(known) | names_of(proto))


def _rename(graph: GraphProto, outer: Mapping[str, str], known: set[str], taken: set[str]) -> None:
    """Rename in a graph and its branches; ``taken`` grows by the new names."""
    defined = [tensor.name for tensor in graph.initializer]
    defined += [value.name for value in graph.input]
    defined += [name for node in graph.node for name in node.output]
    new = dict(outer)
    for name in dict.fromkeys(defined):
        new.pop(name, None)  # of an outer value, which this one hides
        if name and name not in known:
            new[name] = _fresh(name, taken)
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.name = new.get(item.name, item.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new.get(name, name)
        for inner in inner_graphs(node):
            _rename(inner, new, known, taken)


def _fresh(stem: str, taken: set[str]) -> str:
    number = 1
    while f"{stem}@{number}" in taken:
        number += 1
    taken.add(f"{stem}@{number}")
    return f"{stem}@{number}"


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
