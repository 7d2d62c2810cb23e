"""Conversion rules of operators that only change the shape or the order of axes."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value, plain_order, to_storage_shape
from edgekit.conversion.onnx_to_tflite.ops.layout_preserving_reshape import reshape_value
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Shape


def _reshape(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Reshape, Flatten, Squeeze and Unsqueeze to the inferred shape of the output."""
    value = builder.value(node, 0, mixed=True)
    result = reshape_value(builder, value, builder.shape_of(node.output[0]))
    builder.bind(node, result.tensor, result.order, mixed=result.mixed)


def _identity(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0, mixed=True)
    builder.bind(node, value.tensor, value.order, mixed=value.mixed)


def _transpose(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    rank = len(value.order)
    perm = list(get_attribute(node, "perm") or reversed(range(rank)))
    builder.bind(node, value.tensor, tuple(perm.index(axis) for axis in value.order))


def _expand(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = add_leading_axes(builder, builder.value(node, 0), len(builder.shape_of(node.output[0])))
    shape = to_storage_shape(builder.shape_of(node.output[0]), value.order)
    result = value.tensor
    if result.shape != shape:
        result = emit_move(builder, "BROADCAST_TO", [result, builder.int32(shape)], shape)
    builder.bind(node, result, value.order)


def add_leading_axes(builder: TfliteGraphBuilder, value: Value, rank: int) -> Value:
    """Add leading axes of size 1 up to a rank."""
    more = rank - len(value.order)
    if not more:
        return value
    tensor = builder.reshape(value.tensor, (1,) * more + value.tensor.shape)
    order = (*plain_order(more), *(axis + more for axis in value.order))
    return Value(tensor=tensor, order=order)


def _tile(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    shape = builder.shape_of(node.output[0])
    repeats = _read_repeats(builder, node, value.shape)
    sizes = to_storage_shape(shape, value.order)
    result = value.tensor
    if math.prod(repeats) != 1:
        counts = builder.int32([repeats[axis] for axis in value.order])
        result = emit_move(builder, "TILE", [result, counts], sizes)
    builder.bind(node, result, value.order)


def _read_repeats(builder: TfliteGraphBuilder, node: NodeProto, shape: Shape) -> tuple[int, ...]:
    """Read the repeats of each axis; before opset 6, one axis and its count as two scalars."""
    repeats = builder.integers(node, 1)
    if not builder.has(node, 2):
        return repeats
    axis = builder.integers(node, 2)[0] % len(shape)
    return tuple(repeats[0] if each == axis else 1 for each in range(len(shape)))


def _refuse_dynamic_shape(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    raise builder.refusal(node, "depends on sizes that are known only at run time")


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
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
