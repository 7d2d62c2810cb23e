"""Topological sorting of nodes, which ONNX requires."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from onnx import GraphProto, NodeProto

InnerGraphs = Callable[[NodeProto], Iterable[GraphProto]]


def sort_nodes(graph: GraphProto, inner_graphs: InnerGraphs) -> None:
    """Sort the nodes of a graph topologically in place; a graph with a cycle is left unchanged.

    onnxruntime accepts any order, and float16 converters append their casts at the end.

    Args:
        graph: the graph; its inner graphs are not sorted.
        inner_graphs: yields the inner graphs of a node.
    """
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [
        {makers[name] for name in _iter_reads(node, inner_graphs) if name in makers} - {i}
        for i, node in enumerate(graph.node)
    ]
    if all(max(each, default=-1) < i for i, each in enumerate(needs)):
        return
    order = _sort_topologically(needs)
    if len(order) == len(needs):
        nodes = [graph.node[i] for i in order]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def _sort_topologically(needs: list[set[int]]) -> list[int]:
    """Return node indices in topological order, ties in the given order; cycles are left out."""
    readers: dict[int, list[int]] = defaultdict(list)
    missing = [len(each) for each in needs]
    for position, each in enumerate(needs):
        for other in each:
            readers[other].append(position)
    ready = [position for position, count in enumerate(missing) if not count]
    order: list[int] = []
    heapq.heapify(ready)
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for reader in readers[position]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order


def _iter_reads(node: NodeProto, inner_graphs: InnerGraphs) -> Iterator[str]:
    yield from node.input
    for graph in inner_graphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _iter_reads(inner, inner_graphs)
