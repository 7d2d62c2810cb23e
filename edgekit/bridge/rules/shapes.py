"""Conversion rules of operators that only change the shape or the order of axes."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.graph import Shape
from edgekit.bridge.layout import Value, plain_order, stored
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.moving import moved
from edgekit.bridge.rules.reshaping import reshaped


def _reshape(low: Lowering, node: NodeProto) -> None:
    """Convert Reshape, Flatten, Squeeze and Unsqueeze to the inferred shape of the output."""
    value = low.value(node, 0, mixed=True)
    made = reshaped(low, value, low.shape_of(node.output[0]))
    low.bind(node, made.tensor, made.order, mixed=made.mixed)


def _identity(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0, mixed=True)
    low.bind(node, value.tensor, value.order, mixed=value.mixed)


def _transpose(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    rank = len(value.order)
    perm = list(attr(node, "perm") or reversed(range(rank)))
    low.bind(node, value.tensor, tuple(perm.index(axis) for axis in value.order))


def _expand(low: Lowering, node: NodeProto) -> None:
    value = widened(low, low.value(node, 0), len(low.shape_of(node.output[0])))
    shape = stored(low.shape_of(node.output[0]), value.order)
    made = value.tensor
    if made.shape != shape:
        made = moved(low, "BROADCAST_TO", [made, low.int32(shape)], shape)
    low.bind(node, made, value.order)


def widened(low: Lowering, value: Value, rank: int) -> Value:
    """Add leading axes of size 1 up to a rank."""
    more = rank - len(value.order)
    if not more:
        return value
    tensor = low.reshaped(value.tensor, (1,) * more + value.tensor.shape)
    order = (*plain_order(more), *(axis + more for axis in value.order))
    return Value(tensor=tensor, order=order)


def _tile(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    shape = low.shape_of(node.output[0])
    repeats = _repeats(low, node, value.shape)
    sizes = stored(shape, value.order)
    made = value.tensor
    if math.prod(repeats) != 1:
        counts = low.int32([repeats[axis] for axis in value.order])
        made = moved(low, "TILE", [made, counts], sizes)
    low.bind(node, made, value.order)


def _repeats(low: Lowering, node: NodeProto, shape: Shape) -> tuple[int, ...]:
    """Read the repeats of each axis; before opset 6, one axis and its count as two scalars."""
    given = low.integers(node, 1)
    if not low.has(node, 2):
        return given
    axis = low.integers(node, 2)[0] % len(shape)
    return tuple(given[0] if each == axis else 1 for each in range(len(shape)))


def _computed(low: Lowering, node: NodeProto) -> None:
    raise low.refusal(node, "depends on sizes that only the run tells")


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "ConstantOfShape": _computed,
    "Expand": _expand,
    "EyeLike": _computed,
    "Flatten": _reshape,
    "Identity": _identity,
    "Range": _computed,
    "Reshape": _reshape,
    "Shape": _computed,
    "Size": _computed,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
