"""ONNX sequences of known length, replaced by lists of tensor names while shapes are fixed."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from edgekit.conversion.onnx_to_tflite.evaluation_context import EvaluationContext
from edgekit.onnx_graph.graph_index import read_attribute


class SequenceRewriter:
    """Members of each sequence by the name of the sequence."""

    def __init__(self) -> None:
        self.members: dict[str, list[str]] = {}

    def add_alias(self, name: str, alias: str) -> None:
        """Give a sequence another name."""
        if name in self.members:
            self.members[alias] = self.members[name]

    def replace_node(self, context: EvaluationContext, node: NodeProto) -> list[NodeProto] | None:
        """Return tensor nodes that replace a node on a sequence; ``None`` where none can."""
        output = node.output[0]
        if node.op_type == "SequenceEmpty":
            self.members[output] = []
            return []
        if node.op_type == "SequenceConstruct":
            self.members[output] = list(node.input)
            return []
        if node.op_type == "SplitToSequence":
            return self._split(context, node)
        if not node.input or node.input[0] not in self.members:
            return None
        return self._replace_reader(context, node, list(self.members[node.input[0]]))

    def _replace_reader(
        self, context: EvaluationContext, node: NodeProto, members: list[str]
    ) -> list[NodeProto] | None:
        output = node.output[0]
        if node.op_type == "SequenceLength":
            context.store(output, np.asarray(len(members), np.int64))
            return []
        if node.op_type == "ConcatFromSequence":
            return self._concatenate(context, node, members)
        position = self._find_position(context, node, len(members))
        if position is None:
            return None
        if node.op_type == "SequenceAt":
            return [helper.make_node("Identity", [members[position]], [output])]
        if node.op_type == "SequenceInsert":
            members.insert(position, node.input[1])
        elif node.op_type == "SequenceErase":
            del members[position]
        else:
            return None
        self.members[output] = members
        return []

    @staticmethod
    def _find_position(context: EvaluationContext, node: NodeProto, count: int) -> int | None:
        """Return the position at which a node inserts, erases or reads; the end by default."""
        input_index = 2 if node.op_type == "SequenceInsert" else 1
        if len(node.input) <= input_index or not node.input[input_index]:
            return count if node.op_type == "SequenceInsert" else count - 1
        position = context.value(node.input[input_index])
        if position is None:
            return None
        return int(position) + (count if int(position) < 0 else 0)

    @staticmethod
    def _concatenate(
        context: EvaluationContext, node: NodeProto, members: list[str]
    ) -> list[NodeProto]:
        axis = int(str(read_attribute(node, "axis", 0)))
        if not read_attribute(node, "new_axis", 0):
            return [helper.make_node("Concat", members, list(node.output), axis=axis)]
        unsqueezed = [context.fresh(name) for name in members]
        axes = context.fresh("axis")
        context.store(axes, np.asarray([axis], np.int64))
        unsqueeze_nodes = [
            build_unsqueeze(context, name, other, axes, axis)
            for name, other in zip(members, unsqueezed, strict=True)
        ]
        return [
            *unsqueeze_nodes,
            helper.make_node("Concat", unsqueezed, list(node.output), axis=axis),
        ]

    def _split(self, context: EvaluationContext, node: NodeProto) -> list[NodeProto] | None:
        shape = context.shape(node.input[0])
        split_sizes = context.value(node.input[1]) if len(node.input) > 1 else np.asarray(1)
        if shape is None or split_sizes is None:
            return None
        axis = int(str(read_attribute(node, "axis", 0))) % len(shape)
        step = int(split_sizes) if split_sizes.ndim == 0 else 0
        sizes = split_sizes.tolist() if split_sizes.ndim else _split_evenly(shape[axis], step)
        names = [context.fresh(node.output[0]) for _ in sizes]
        self.members[node.output[0]] = names
        parts = context.fresh("sizes")
        context.store(parts, np.asarray(sizes, np.int64))
        if len(node.input) > 1 or read_attribute(node, "keepdims", 1):
            if context.opset < 13:
                return [helper.make_node("Split", node.input[:1], names, axis=axis, split=sizes)]
            return [helper.make_node("Split", [node.input[0], parts], names, axis=axis)]
        indices = [context.fresh("place") for _ in names]
        for index, name in enumerate(indices):
            context.store(name, np.asarray(index, np.int64))
        return [
            helper.make_node("Gather", [node.input[0], index], [name], axis=axis)
            for name, index in zip(names, indices, strict=True)
        ]


def build_unsqueeze(
    context: EvaluationContext, name: str, output: str, axes: str, axis: int
) -> NodeProto:
    """Build the Unsqueeze that adds an axis to a value.

    Args:
        context: Provides the opset.
        name: Name of the value.
        output: Name of the result.
        axes: Name of the constant with the axis, used from opset 13 on.
        axis: The new axis.
    """
    if context.opset < 13:
        return helper.make_node("Unsqueeze", [name], [output], axes=[axis])
    return helper.make_node("Unsqueeze", [name, axes], [output])


def _split_evenly(size: int, step: int) -> list[int]:
    return [min(step, size - start) for start in range(0, size, step)]
