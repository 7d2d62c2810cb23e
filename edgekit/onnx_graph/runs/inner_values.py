"""Extra outputs of If, Loop and Scan, so that values of inner graphs can be observed."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_inner_graphs

_EMPTY = "nothing"


@dataclass(frozen=True, kw_only=True)
class _NestedGraph:
    """Graph and the node of the enclosing graph that holds it."""

    graph: GraphProto
    node: NodeProto | None
    outer_number: int  # index of the enclosing graph


class Exposure:
    """Copy of a model in which values of inner graphs can become values of the main graph.

    Graphs are numbered: 0 is the main graph, the others follow in the order of
    ``GraphIndex.iter_inner``. Each exposed value becomes an output of every enclosing node. It is
    empty if it belongs to a branch of an If that does not run. A Loop or Scan adds a leading axis
    of iterations.

    Args:
        proto: the model; not changed.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        self.index = GraphIndex(self.proto)
        self._graphs: list[_NestedGraph] = []
        self._exposed: dict[tuple[int, str], str] = {}
        self._collect_graphs(self.proto.graph, None, 0)

    def _collect_graphs(self, graph: GraphProto, node: NodeProto | None, outer_number: int) -> None:
        graph_number = len(self._graphs)
        self._graphs.append(_NestedGraph(graph=graph, node=node, outer_number=outer_number))
        for inner_node in graph.node:
            for inner in iter_inner_graphs(inner_node):
                self._collect_graphs(inner, inner_node, graph_number)

    def nodes(self, graph_number: int) -> list[NodeProto]:
        """Return the nodes of one graph of the copy."""
        return list(self._graphs[graph_number].graph.node)

    def count_iteration_axes(self, graph_number: int) -> int:
        """Return the number of iteration axes that exposed values of a graph have."""
        axis_count = 0
        while graph_number:
            nested = self._graphs[graph_number]
            axis_count += nested.node is not None and nested.node.op_type != "If"
            graph_number = nested.outer_number
        return axis_count

    def expose(self, graph_number: int, name: str) -> str:
        """Expose a float32 value of an inner graph to the main graph.

        Args:
            graph_number: number of the graph; 0 is the main graph.
            name: of the value.

        Returns:
            The name of the value in the main graph.
        """
        if not graph_number:
            return name
        key = (graph_number, name)
        if key not in self._exposed:
            nested = self._graphs[graph_number]
            outer = self._add_output(nested, name)
            self._exposed[key] = self.expose(nested.outer_number, outer)
        return self._exposed[key]

    def _add_output(self, nested: _NestedGraph, name: str) -> str:
        """Add an output with an inner value to the enclosing node and return its name."""
        node = nested.node
        if node is None:
            raise ValueError("the main graph has no enclosing node")
        inside = self.index.fresh(f"{name}_seen")
        nested.graph.node.append(helper.make_node("Identity", [name], [inside]))
        omitted = (
            1 if node.op_type == "Loop" else 0
        )  # the loop's own condition is no output of the node
        for graph in iter_inner_graphs(node):
            # A node may omit trailing outputs that are not read.
            while len(node.output) < len(graph.output) - omitted:
                node.output.append(self.index.fresh(f"{name}_unused"))
            if graph is not nested.graph:
                self._add_empty(graph, inside)
        nested.graph.output.append(_make_float_value(inside))
        _extend_scan_attributes(node)
        outer = self.index.fresh(f"{name}_seen")
        node.output.append(outer)
        return outer

    def _add_empty(self, graph: GraphProto, stem: str) -> None:
        """Add an empty output to the other branch of an If."""
        output_name = self.index.fresh(f"{stem}_{_EMPTY}")
        value = helper.make_tensor("value", TensorProto.FLOAT, [0], [])
        graph.node.append(helper.make_node("Constant", [], [output_name], value=value))
        graph.output.append(_make_float_value(output_name))


def _make_float_value(name: str) -> ValueInfoProto:
    value = helper.make_empty_tensor_value_info(name)
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    return value


def _extend_scan_attributes(node: NodeProto) -> None:
    """Extend the axes and directions that a Scan lists for its outputs by those of a new one."""
    for attribute in node.attribute:
        if node.op_type == "Scan" and attribute.name.startswith("scan_output_"):
            attribute.ints.append(0)
