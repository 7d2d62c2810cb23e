"""What values of a graph are made of: the part of a model that leads up to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.offload import without_weights
from edgekit.graphs.onnx_file import inner_graphs


def reads_of(node: NodeProto) -> set[str]:
    """Every name that a node reads, its inner graphs included."""
    names = {name for name in node.input if name}
    for graph in inner_graphs(node):
        names |= {value.name for value in graph.output}
        for each in graph.node:
            names |= reads_of(each)
    return names


def upstream(index: GraphIndex, names: Collection[str]) -> set[str]:
    """The named values and every value that one of them is computed from."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in index.producer:
            waiting.extend(reads_of(index.producer[name]))
    return found


def downstream(index: GraphIndex, name: str, *, but: Collection[NodeProto] = ()) -> set[str]:
    """A value and every one that is computed from it, other than by some nodes."""
    left = {id(node) for node in but}
    found = {name}
    for node in index.graph.node:
        if id(node) not in left and not found.isdisjoint(reads_of(node)):
            found.update(each for each in node.output if each)
    return found


def up_to(proto: ModelProto, names: Collection[str]) -> ModelProto:
    """The part of a model that makes these values, which are its outputs; all inputs are kept.

    Args:
        proto: the model; not changed.
        names: values of its main graph: floats, its inputs or its outputs.
    """
    index = GraphIndex(proto)
    needed = upstream(index, names)
    part = without_weights(proto)
    known = {v.name: v.type.tensor_type.elem_type for v in proto.graph.output}
    nodes = list(_making(proto, needed)) or [_nothing(index, known)]
    del part.graph.node[:]
    part.graph.node.extend(nodes)
    del part.graph.output[:]
    made = {name for node in nodes for name in node.output}
    for name in [name for name in names if name in made] or nodes[0].output:
        kind = known.get(name, TensorProto.FLOAT)
        part.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in needed)
    return part


def _nothing(index: GraphIndex, known: dict[str, int]) -> NodeProto:
    """Where only inputs are asked for: the runtime takes no graph without an output."""
    fed = next(v for v in index.graph.input if v.name not in index.initializers)
    same = index.fresh(f"{fed.name}_same")
    known[same] = fed.type.tensor_type.elem_type
    return helper.make_node("Identity", [fed.name], [same])


def _making(proto: ModelProto, needed: set[str]) -> Iterator[NodeProto]:
    return (node for node in proto.graph.node if not needed.isdisjoint(node.output))
