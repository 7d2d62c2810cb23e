"""Conversion rules of operators that only change the shape or the order of axes."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value, plain_order, to_storage_shape
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.ops.reshaping import reshape_value
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Shape


def _reshape(low: Lowering, node: NodeProto) -> None:
    """Convert Reshape, Flatten, Squeeze and Unsqueeze to the inferred shape of the output."""
    value = low.value(node, 0, mixed=True)
    made = reshape_value(low, value, low.shape_of(node.output[0]))
    low.bind(node, made.tensor, made.order, mixed=made.mixed)


def _identity(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0, mixed=True)
    low.bind(node, value.tensor, value.order, mixed=value.mixed)


def _transpose(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    rank = len(value.order)
    perm = list(get_attribute(node, "perm") or reversed(range(rank)))
    low.bind(node, value.tensor, tuple(perm.index(axis) for axis in value.order))


def _expand(low: Lowering, node: NodeProto) -> None:
    value = add_leading_axes(low, low.value(node, 0), len(low.shape_of(node.output[0])))
    shape = to_storage_shape(low.shape_of(node.output[0]), value.order)
    made = value.tensor
    if made.shape != shape:
        made = emit_move(low, "BROADCAST_TO", [made, low.int32(shape)], shape)
    low.bind(node, made, value.order)


def add_leading_axes(low: Lowering, value: Value, rank: int) -> Value:
    """Add leading axes of size 1 up to a rank."""
    more = rank - len(value.order)
    if not more:
        return value
    tensor = low.reshape(value.tensor, (1,) * more + value.tensor.shape)
    order = (*plain_order(more), *(axis + more for axis in value.order))
    return Value(tensor=tensor, order=order)


def _tile(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    shape = low.shape_of(node.output[0])
    repeats = _read_repeats(low, node, value.shape)
    sizes = to_storage_shape(shape, value.order)
    made = value.tensor
    if math.prod(repeats) != 1:
        counts = low.int32([repeats[axis] for axis in value.order])
        made = emit_move(low, "TILE", [made, counts], sizes)
    low.bind(node, made, value.order)


def _read_repeats(low: Lowering, node: NodeProto, shape: Shape) -> tuple[int, ...]:
    """Read the repeats of each axis; before opset 6, one axis and its count as two scalars."""
    given = low.integers(node, 1)
    if not low.has(node, 2):
        return given
    axis = low.integers(node, 2)[0] % len(shape)
    return tuple(given[0] if each == axis else 1 for each in range(len(shape)))


def _refuse_dynamic_shape(low: Lowering, node: NodeProto) -> None:
    raise low.refusal(node, "depends on sizes that are known only at run time")


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "ConstantOfShape": _refuse_dynamic_shape,
    "Expand": _expand,
    "EyeLike": _refuse_dynamic_shape,
    "Flatten": _reshape,
    "Identity": _identity,
    "Range": _refuse_dynamic_shape,
    "Reshape": _reshape,
    "Shape": _refuse_dynamic_shape,
    "Size": _refuse_dynamic_shape,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
