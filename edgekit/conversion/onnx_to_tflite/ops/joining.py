"""Conversion rules of Concat and Split, and their helpers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move, working_type
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor


def _concat(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    values = [builder.value(node, position) for position in range(len(node.input))]
    filled = [value for value in values if 0 not in value.shape] or values[:1]
    leader = pick_leader(filled)
    axis = leader.axis(get_attribute(node, "axis", 1))
    parts = [builder.to_order(value, leader.order) for value in filled]
    builder.bind(node, concatenate(builder, parts, axis), leader.order)


def pick_leader(values: Sequence[Value]) -> Value:
    """Pick the value whose storage order the others should take: the largest computed one."""
    return max(values, key=lambda v: (not v.tensor.is_constant, math.prod(v.tensor.shape)))


def concatenate(builder: TfliteGraphBuilder, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate tensors along a stored axis; a single one is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    options = {"axis": axis, "fused_activation_function": "NONE"}
    every = range(len(parts))
    return emit_move(builder, "CONCATENATION", parts, tuple(shape), data=every, options=options)


def _split(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    axis = get_attribute(node, "axis", 0) % len(value.order)
    sizes = [builder.shape_of(name)[axis] for name in node.output]
    for position, part in enumerate(split_tensor(builder, value.tensor, sizes, value.axis(axis))):
        builder.bind(node, part, value.order, output=position)


def split_tensor(
    builder: TfliteGraphBuilder, tensor: Tensor, sizes: Sequence[int], axis: int
) -> list[Tensor]:
    """Split a tensor along a stored axis into parts of given sizes.

    Args:
        builder: receives the operators.
        tensor: to be split.
        sizes: of the parts along the axis.
        axis: as it is stored.
    """
    if len(sizes) == 1:
        return [tensor]
    equal = len(set(sizes)) == 1
    op_type = "SPLIT" if equal else "SPLIT_V"
    operand = builder.cast(tensor, working_type(op_type, tensor.dtype))
    parts = [_make_part(operand, size, axis) for size in sizes]
    axis_constant = builder.int32(axis)
    inputs = [axis_constant, operand] if equal else [operand, builder.int32(sizes), axis_constant]
    builder.emit_many(op_type, inputs, parts, options={"num_splits": len(sizes)})
    return [builder.cast(part, tensor.dtype) for part in parts]


def _make_part(tensor: Tensor, size: int, axis: int) -> Tensor:
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    name = f"{tensor.name}/part"
    return Tensor(name=name, dtype=tensor.dtype, shape=shape, quantization=tensor.quantization)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "Concat": _concat,
    "Split": _split,
}
