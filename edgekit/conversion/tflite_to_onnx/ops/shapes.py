"""Conversion rules of operators that change, read or fill shapes."""

from __future__ import annotations

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import plain_order
from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import normalize_axis, squeeze_axes, unsqueeze_axes
from edgekit.tflite.ir import Op, Shape


def reshape(lifting: Lifting, op: Op) -> None:
    """Convert RESHAPE; the order of axes is kept if only axes of size 1 are added or removed."""
    x, made = lifting.tensor(op, 0), op.outputs[0]
    is_stored = not lifting.has(op, 1) or lifting.array(op, 1) is not None
    before, after = lifting.shape(x), lifting.shape(made)
    if not is_stored and min(after, default=0) < 0:
        lifting.bind(op, lifting.node("Reshape", [lifting.plain(op, 0), lifting.int64(op, 1)]))
        return
    if lifting.order(op, 0) != plain_order(len(before)) and _differs_in_ones(before, after):
        order = lifting.order(op, 0)
        gone = [i for i, n in enumerate(before) if i and n == 1]
        new = [i for i, n in enumerate(after) if i and n == 1]
        name, order = squeeze_axes(lifting, lifting.read(x, order), order, gone)
        lifting.bind(op, *unsqueeze_axes(lifting, name, order, new))
        return
    sizes = lifting.ints(*_target_sizes(lifting, op, before, after))
    lifting.bind(op, lifting.node("Reshape", [lifting.plain(op, 0), sizes]))


def _differs_in_ones(before: Shape, after: Shape) -> bool:
    if min((*before, *after), default=0) < 0 or not before or not after:
        return False
    rest = [[n for n in shape[1:] if n != 1] for shape in (before, after)]
    return before[0] == after[0] and rest[0] == rest[1]


def _target_sizes(lifting: Lifting, op: Op, before: Shape, after: Shape) -> list[int]:
    """Return the target sizes of Reshape; the first one is -1 (inferred) if all are known."""
    sizes = [int(n) for n in after]
    if min(sizes, default=0) < 0:
        wanted = lifting.integers(op, 1) if lifting.has(op, 1) else op.options["new_shape"]
        sizes = [int(n) for n in wanted]
    if sizes and min(sizes) > 0 and min(before, default=1) > 0:
        sizes[0] = -1
    return sizes


def squeeze(lifting: Lifting, op: Op) -> None:
    """Convert SQUEEZE of given axes, or of all axes of size 1."""
    x, rank = lifting.tensor(op, 0), len(lifting.tensor(op, 0).shape)
    axes = sorted({normalize_axis(a, rank) for a in op.options.get("squeeze_dims") or ()})
    axes = axes or [i for i, n in enumerate(lifting.require_shape(op, 0)) if n == 1]
    order = lifting.order(op, 0)
    lifting.bind(op, *squeeze_axes(lifting, lifting.read(x, order), order, axes))


def expand_dims(lifting: Lifting, op: Op) -> None:
    """Convert EXPAND_DIMS to Unsqueeze."""
    order = lifting.order(op, 0)
    axis = normalize_axis(lifting.integers(op, 1)[0], len(order) + 1)
    name = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, *unsqueeze_axes(lifting, name, order, [axis]))


def transpose(lifting: Lifting, op: Op) -> None:
    """Convert TRANSPOSE to a new order of axes; data moves only if a reader needs another order."""
    perm, order = lifting.integers(op, 1), lifting.order(op, 0)
    perm = [normalize_axis(a, len(order)) for a in perm]
    name = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, name, tuple(perm.index(axis) for axis in order))


def shape_of(lifting: Lifting, op: Op) -> None:
    """Convert SHAPE to the sizes in TFLite's order of axes."""
    order, dtype = lifting.order(op, 0), op.outputs[0].dtype
    sizes = lifting.node("Shape", [lifting.read(lifting.tensor(op, 0), order)])
    if order != plain_order(len(order)):
        places = lifting.ints(*(order.index(axis) for axis in range(len(order))))
        sizes = lifting.node("Gather", [sizes, places])
    lifting.bind(op, sizes if dtype == "int64" else lifting.cast(sizes, dtype))


def fill(lifting: Lifting, op: Op) -> None:
    """Convert FILL: expand one value to a shape."""
    value = lifting.plain(op, 1)
    lifting.bind(op, lifting.node("Expand", [value, lifting.int64(op, 0)]))


def range_of(lifting: Lifting, op: Op) -> None:
    """Convert RANGE: numbers from a start up to, but without, a limit."""
    lifting.bind(op, lifting.node("Range", [lifting.plain(op, i) for i in range(3)]))


def broadcast_to(lifting: Lifting, op: Op) -> None:
    """Convert BROADCAST_TO to Expand.

    Expand broadcasts both ways, so that a size of 1 in the target shape keeps a free batch.
    """
    lifting.bind(op, lifting.node("Expand", [lifting.plain(op, 0), lifting.int64(op, 1)]))


def tile(lifting: Lifting, op: Op) -> None:
    """Convert TILE to Tile."""
    x, counts = lifting.tensor(op, 0), lifting.array(op, 1)
    if counts is None:
        lifting.bind(op, lifting.node("Tile", [lifting.plain(op, 0), lifting.int64(op, 1)]))
        return
    order = lifting.order(op, 0)
    turned = np.asarray(counts, np.int64)[list(order)]
    lifting.bind(op, lifting.node("Tile", [lifting.read(x, order), lifting.numbers(turned)]), order)


LIFTS: dict[str, Rule] = {
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
