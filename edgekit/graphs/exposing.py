"""Values of inner graphs (If, Loop, Scan) as values of the main graph, to be observed there."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import inner_graphs

_EMPTY = "nothing"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A graph, and the node of the graph around it that carries it."""

    graph: GraphProto
    node: NodeProto | None
    around: int  # the place of the graph around it


class Exposure:
    """A copy of a model whose inner values can be made values of its main graph.

    Graphs are told by their place: 0 is the main one, the others follow in the order of
    ``GraphIndex.inner``. Each value gets an output at every node that it lies in. Where a branch
    of an If is not taken, the value has no entries; of a Loop or Scan it has a first axis more, of
    the rounds.

    Args:
        proto: the model; not changed.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        self.index = GraphIndex(self.proto)
        self._places: list[_Place] = []
        self._exposed: dict[tuple[int, str], str] = {}
        self._find(self.proto.graph, None, 0)

    def _find(self, graph: GraphProto, node: NodeProto | None, around: int) -> None:
        place = len(self._places)
        self._places.append(_Place(graph=graph, node=node, around=around))
        for each in graph.node:
            for inner in inner_graphs(each):
                self._find(inner, each, place)

    def nodes(self, place: int) -> list[NodeProto]:
        """The nodes of a graph of the copy, to be told which of their values are wanted."""
        return list(self._places[place].graph.node)

    def rounds(self, place: int) -> int:
        """How many axes of rounds a value of this graph has once it is exposed."""
        found = 0
        while place:
            here = self._places[place]
            found += here.node is not None and here.node.op_type != "If"
            place = here.around
        return found

    def expose(self, place: int, name: str) -> str:
        """The name by which the main graph knows a float32 value of a graph."""
        if not place:
            return name
        key = (place, name)
        if key not in self._exposed:
            here = self._places[place]
            outer = self._add_output(here, name)
            self._exposed[key] = self.expose(here.around, outer)
        return self._exposed[key]

    def _add_output(self, here: _Place, name: str) -> str:
        """Give the node around a graph an output that is a value inside it; returns its name."""
        node = here.node
        if node is None:
            raise ValueError("the main graph has no node around it")
        inside = self.index.fresh(f"{name}_seen")
        here.graph.node.append(helper.make_node("Identity", [name], [inside]))
        own = 1 if node.op_type == "Loop" else 0  # whether it goes on is for the loop itself
        for graph in inner_graphs(node):
            # A node may leave out outputs that it has no use for.
            while len(node.output) < len(graph.output) - own:
                node.output.append(self.index.fresh(f"{name}_unused"))
            if graph is not here.graph:
                self._add_empty(graph, inside)
        here.graph.output.append(_float_value(inside))
        _say_scan_outputs(node)
        outer = self.index.fresh(f"{name}_seen")
        node.output.append(outer)
        return outer

    def _add_empty(self, graph: GraphProto, stem: str) -> None:
        """The other branch of an If: an output without entries."""
        made = self.index.fresh(f"{stem}_{_EMPTY}")
        value = helper.make_tensor("value", TensorProto.FLOAT, [0], [])
        graph.node.append(helper.make_node("Constant", [], [made], value=value))
        graph.output.append(_float_value(made))


def _float_value(name: str) -> ValueInfoProto:
    value = helper.make_empty_tensor_value_info(name)
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    return value


def _say_scan_outputs(node: NodeProto) -> None:
    """Axis and direction of one more output, where a Scan tells those of the others."""
    for attribute in node.attribute:
        if node.op_type == "Scan" and attribute.name.startswith("scan_output_"):
            attribute.ints.append(0)
