"""Constants of an edited graph under the names that they had before."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import all_graphs


def old_names(original: ModelProto, changed: ModelProto) -> None:
    """Call what a node of ``changed`` reads as the same node of ``original`` called it, in place.

    Nodes are told by the first value that they make. Only constants that are read once are
    renamed, to names that nothing bears any more; constants that nothing reads are dropped.
    """
    before = {node.output[0]: node for node in original.graph.node if node.output}
    index = GraphIndex(changed)
    index.drop_unread_constants()
    taken = {name for graph in all_graphs(changed.graph) for name in _names(graph)}
    for node in changed.graph.node:
        known = before.get(node.output[0]) if node.output else None
        for place, (name, old) in enumerate(
            zip(node.input, known.input if known else (), strict=False)
        ):
            if old in taken or name not in index.initializers or not index.only_reader(name):
                continue
            taken.add(old)
            index.initializers[name].name = node.input[place] = old


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
