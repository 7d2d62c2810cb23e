"""Limits on the size of a graph: runtimes take minutes to load larger ones."""

from __future__ import annotations

from onnx import AttributeProto, GraphProto

from edgekit.errors import UserError

MOST_NODES = 100_000
MOST_INNER_GRAPHS = 2_000


def refuse_too_many_nodes(graph: GraphProto, *, location: str) -> None:
    """Check the number of nodes and of inner graphs (If, Loop, Scan).

    Args:
        graph: the main graph.
        location: beginning of the message, such as the path of the file.

    Raises:
        UserError: there are too many.
    """
    nodes = graphs = 0
    waiting = [graph]
    while waiting:
        subgraph = waiting.pop()
        nodes += len(subgraph.node)
        graphs += 1
        if nodes > MOST_NODES or graphs > MOST_INNER_GRAPHS + 1:
            raise UserError(
                f"{location}: more than {MOST_NODES:,} nodes or {MOST_INNER_GRAPHS:,} branches and "
                "loop bodies",
                hint="export loops as Loop or Scan operators instead of unrolling them, and "
                "evaluate constant conditions before export",
            )
        for node in subgraph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    waiting.append(attribute.g)
                elif attribute.type == AttributeProto.GRAPHS:
                    waiting.extend(attribute.graphs)
