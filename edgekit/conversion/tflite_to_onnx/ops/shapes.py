"""Conversion rules of operators that change, read or fill shapes."""

from __future__ import annotations

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import plain_order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import normalize_axis, squeeze_axes, unsqueeze_axes
from edgekit.tflite.ir import Op, Shape


def reshape(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert RESHAPE; the order of axes is kept if only axes of size 1 are added or removed."""
    x, result = builder.tensor(op, 0), op.outputs[0]
    is_stored = not builder.has(op, 1) or builder.array(op, 1) is not None
    before, after = builder.shape(x), builder.shape(result)
    if not is_stored and min(after, default=0) < 0:
        builder.bind(op, builder.node("Reshape", [builder.plain(op, 0), builder.int64(op, 1)]))
        return
    if builder.order(op, 0) != plain_order(len(before)) and _differs_in_ones(before, after):
        order = builder.order(op, 0)
        gone = [i for i, n in enumerate(before) if i and n == 1]
        new = [i for i, n in enumerate(after) if i and n == 1]
        name, order = squeeze_axes(builder, builder.read(x, order), order, gone)
        builder.bind(op, *unsqueeze_axes(builder, name, order, new))
        return
    sizes = builder.ints(*_target_sizes(builder, op, before, after))
    builder.bind(op, builder.node("Reshape", [builder.plain(op, 0), sizes]))


def _differs_in_ones(before: Shape, after: Shape) -> bool:
    if min((*before, *after), default=0) < 0 or not before or not after:
        return False
    rest = [[n for n in shape[1:] if n != 1] for shape in (before, after)]
    return before[0] == after[0] and rest[0] == rest[1]


def _target_sizes(builder: OnnxGraphBuilder, op: Op, before: Shape, after: Shape) -> list[int]:
    """Return the target sizes of Reshape; the first one is -1 (inferred) if all are known."""
    sizes = [int(n) for n in after]
    if min(sizes, default=0) < 0:
        target = builder.integers(op, 1) if builder.has(op, 1) else op.options["new_shape"]
        sizes = [int(n) for n in target]
    if sizes and min(sizes) > 0 and min(before, default=1) > 0:
        sizes[0] = -1
    return sizes


def squeeze(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SQUEEZE of given axes, or of all axes of size 1."""
    x, rank = builder.tensor(op, 0), len(builder.tensor(op, 0).shape)
    axes = sorted({normalize_axis(a, rank) for a in op.options.get("squeeze_dims") or ()})
    axes = axes or [i for i, n in enumerate(builder.require_shape(op, 0)) if n == 1]
    order = builder.order(op, 0)
    builder.bind(op, *squeeze_axes(builder, builder.read(x, order), order, axes))


def expand_dims(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert EXPAND_DIMS to Unsqueeze."""
    order = builder.order(op, 0)
    axis = normalize_axis(builder.integers(op, 1)[0], len(order) + 1)
    name = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, *unsqueeze_axes(builder, name, order, [axis]))


def transpose(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert TRANSPOSE to a new order of axes; data moves only if a reader needs another order."""
    perm, order = builder.integers(op, 1), builder.order(op, 0)
    perm = [normalize_axis(a, len(order)) for a in perm]
    name = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, name, tuple(perm.index(axis) for axis in order))


def shape_of(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SHAPE to the sizes in TFLite's order of axes."""
    order, dtype = builder.order(op, 0), op.outputs[0].dtype
    sizes = builder.node("Shape", [builder.read(builder.tensor(op, 0), order)])
    if order != plain_order(len(order)):
        positions = builder.ints(*(order.index(axis) for axis in range(len(order))))
        sizes = builder.node("Gather", [sizes, positions])
    builder.bind(op, sizes if dtype == "int64" else builder.cast(sizes, dtype))


def fill(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert FILL: expand one value to a shape."""
    value = builder.plain(op, 1)
    builder.bind(op, builder.node("Expand", [value, builder.int64(op, 0)]))


def range_of(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert RANGE: numbers from a start up to, but without, a limit."""
    builder.bind(op, builder.node("Range", [builder.plain(op, i) for i in range(3)]))


def broadcast_to(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert BROADCAST_TO to Expand.

    Expand broadcasts both ways, so that a size of 1 in the target shape keeps a free batch.
    """
    builder.bind(op, builder.node("Expand", [builder.plain(op, 0), builder.int64(op, 1)]))


def tile(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert TILE to Tile."""
    x, counts = builder.tensor(op, 0), builder.array(op, 1)
    if counts is None:
        builder.bind(op, builder.node("Tile", [builder.plain(op, 0), builder.int64(op, 1)]))
        return
    order = builder.order(op, 0)
    turned = np.asarray(counts, np.int64)[list(order)]
    builder.bind(op, builder.node("Tile", [builder.read(x, order), builder.numbers(turned)]), order)


RULES: dict[str, Rule] = {
    "BROADCAST_TO": broadcast_to,
    "EXPAND_DIMS": expand_dims,
    "FILL": fill,
    "RANGE": range_of,
    "RESHAPE": reshape,
    "SHAPE": shape_of,
    "SQUEEZE": squeeze,
    "TILE": tile,
    "TRANSPOSE": transpose,
}
