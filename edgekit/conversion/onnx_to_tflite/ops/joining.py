"""Conversion rules of Concat and Split, and their helpers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move, working_type
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor


def _concat(low: Lowering, node: NodeProto) -> None:
    values = [low.value(node, place) for place in range(len(node.input))]
    filled = [value for value in values if 0 not in value.shape] or values[:1]
    leader = pick_leader(filled)
    axis = leader.axis(get_attribute(node, "axis", 1))
    parts = [low.to_order(value, leader.order) for value in filled]
    low.bind(node, concatenate(low, parts, axis), leader.order)


def pick_leader(values: Sequence[Value]) -> Value:
    """Pick the value whose storage order the others should take: the largest computed one."""
    return max(values, key=lambda v: (not v.tensor.is_constant, math.prod(v.tensor.shape)))


def concatenate(low: Lowering, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate tensors along a stored axis; a single one is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    options = {"axis": axis, "fused_activation_function": "NONE"}
    every = range(len(parts))
    return emit_move(low, "CONCATENATION", parts, tuple(shape), data=every, options=options)


def _split(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = get_attribute(node, "axis", 0) % len(value.order)
    sizes = [low.shape_of(name)[axis] for name in node.output]
    for place, part in enumerate(split_tensor(low, value.tensor, sizes, value.axis(axis))):
        low.bind(node, part, value.order, output=place)


def split_tensor(low: Lowering, tensor: Tensor, sizes: Sequence[int], axis: int) -> list[Tensor]:
    """Split a tensor along a stored axis into parts of given sizes.

    Args:
        low: receives the operators.
        tensor: to be split.
        sizes: of the parts along the axis.
        axis: as it is stored.
    """
    if len(sizes) == 1:
        return [tensor]
    equal = len(set(sizes)) == 1
    kind = "SPLIT" if equal else "SPLIT_V"
    given = low.cast(tensor, working_type(kind, tensor.dtype))
    made = [_make_part(given, size, axis) for size in sizes]
    place = low.int32(axis)
    inputs = [place, given] if equal else [given, low.int32(sizes), place]
    low.emit_many(kind, inputs, made, options={"num_splits": len(sizes)})
    return [low.cast(part, tensor.dtype) for part in made]


def _make_part(whole: Tensor, size: int, axis: int) -> Tensor:
    shape = (*whole.shape[:axis], size, *whole.shape[axis + 1 :])
    name = f"{whole.name}/part"
    return Tensor(name=name, dtype=whole.dtype, shape=shape, quantization=whole.quantization)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "Concat": _concat,
    "Split": _split,
}
