"""ONNX sequences of known length, replaced by lists of tensor names while shapes are fixed."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from edgekit.conversion.onnx_to_tflite.graph_state import GraphState
from edgekit.onnx_graph.graph_index import read_attribute


class Sequences:
    """Members of each sequence by the name of the sequence."""

    def __init__(self) -> None:
        self.members: dict[str, list[str]] = {}

    def same(self, name: str, other: str) -> None:
        """Give a sequence another name."""
        if name in self.members:
            self.members[other] = self.members[name]

    def replace_node(self, walk: GraphState, node: NodeProto) -> list[NodeProto] | None:
        """Return tensor nodes that replace a node on a sequence; ``None`` where none can."""
        made = node.output[0]
        if node.op_type == "SequenceEmpty":
            self.members[made] = []
            return []
        if node.op_type == "SequenceConstruct":
            self.members[made] = list(node.input)
            return []
        if node.op_type == "SplitToSequence":
            return self._split(walk, node)
        if not node.input or node.input[0] not in self.members:
            return None
        return self._replace_reader(walk, node, list(self.members[node.input[0]]))

    def _replace_reader(
        self, walk: GraphState, node: NodeProto, members: list[str]
    ) -> list[NodeProto] | None:
        made = node.output[0]
        if node.op_type == "SequenceLength":
            walk.store(made, np.asarray(len(members), np.int64))
            return []
        if node.op_type == "ConcatFromSequence":
            return self._concatenate(walk, node, members)
        place = self._find_position(walk, node, len(members))
        if place is None:
            return None
        if node.op_type == "SequenceAt":
            return [helper.make_node("Identity", [members[place]], [made])]
        if node.op_type == "SequenceInsert":
            members.insert(place, node.input[1])
        elif node.op_type == "SequenceErase":
            del members[place]
        else:
            return None
        self.members[made] = members
        return []

    @staticmethod
    def _find_position(walk: GraphState, node: NodeProto, count: int) -> int | None:
        """Return the position at which a node inserts, erases or reads; the end by default."""
        where = 2 if node.op_type == "SequenceInsert" else 1
        if len(node.input) <= where or not node.input[where]:
            return count if node.op_type == "SequenceInsert" else count - 1
        known = walk.value(node.input[where])
        if known is None:
            return None
        return int(known) + (count if int(known) < 0 else 0)

    @staticmethod
    def _concatenate(walk: GraphState, node: NodeProto, members: list[str]) -> list[NodeProto]:
        axis = int(str(read_attribute(node, "axis", 0)))
        if not read_attribute(node, "new_axis", 0):
            return [helper.make_node("Concat", members, list(node.output), axis=axis)]
        wider = [walk.fresh(name) for name in members]
        where = walk.fresh("axis")
        walk.store(where, np.asarray([axis], np.int64))
        made = [
            build_unsqueeze(walk, name, other, where, axis)
            for name, other in zip(members, wider, strict=True)
        ]
        return [*made, helper.make_node("Concat", wider, list(node.output), axis=axis)]

    def _split(self, walk: GraphState, node: NodeProto) -> list[NodeProto] | None:
        shape = walk.shape(node.input[0])
        given = walk.value(node.input[1]) if len(node.input) > 1 else np.asarray(1)
        if shape is None or given is None:
            return None
        axis = int(str(read_attribute(node, "axis", 0))) % len(shape)
        step = int(given) if given.ndim == 0 else 0
        sizes = given.tolist() if given.ndim else _split_evenly(shape[axis], step)
        names = [walk.fresh(node.output[0]) for _ in sizes]
        self.members[node.output[0]] = names
        parts = walk.fresh("sizes")
        walk.store(parts, np.asarray(sizes, np.int64))
        if len(node.input) > 1 or read_attribute(node, "keepdims", 1):
            if walk.opset < 13:
                return [helper.make_node("Split", node.input[:1], names, axis=axis, split=sizes)]
            return [helper.make_node("Split", [node.input[0], parts], names, axis=axis)]
        places = [walk.fresh("place") for _ in names]
        for place, name in enumerate(places):
            walk.store(name, np.asarray(place, np.int64))
        return [
            helper.make_node("Gather", [node.input[0], place], [name], axis=axis)
            for name, place in zip(names, places, strict=True)
        ]


def build_unsqueeze(walk: GraphState, name: str, other: str, where: str, axis: int) -> NodeProto:
    """Build the Unsqueeze that adds an axis to a value.

    Args:
        walk: Provides the opset.
        name: Name of the value.
        other: Name of the result.
        where: Name of the constant with the axis, used from opset 13 on.
        axis: The new axis.
    """
    if walk.opset < 13:
        return helper.make_node("Unsqueeze", [name], [other], axes=[axis])
    return helper.make_node("Unsqueeze", [name, where], [other])


def _split_evenly(size: int, step: int) -> list[int]:
    return [min(step, size - start) for start in range(0, size, step)]
