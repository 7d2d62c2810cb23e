"""Conversion rules of slicing, gathering, scattering, reversing and one-hot encoding."""

from __future__ import annotations

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import plain_order
from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.onnx_builder import get_inner_type
from edgekit.conversion.tflite_to_onnx.ops.axes import normalize_axis
from edgekit.tflite.ir import Op

_ALL = 2**31 - 1


def slice_of(lifting: Lifting, op: Op) -> None:
    """Convert SLICE: a start and a size for each axis; size -1 means up to the end."""
    x = lifting.tensor(op, 0)
    starts, sizes = lifting.array(op, 1), lifting.array(op, 2)
    if starts is None or sizes is None:
        _slice_dynamically(lifting, op)
        return
    order, shape = lifting.order(op, 0), lifting.shape(x)
    cut = [
        (order.index(axis), int(start), _slice_end(int(start), int(size)))
        for axis, (start, size) in enumerate(zip(starts, sizes, strict=True))
        if start or size not in (-1, shape[axis])
    ]
    name = lifting.read(x, order)
    if cut:
        axes, begins, ends = zip(*cut, strict=True)
        inputs = [lifting.ints(*begins), lifting.ints(*ends), lifting.ints(*axes)]
        name = lifting.node("Slice", [name, *inputs])
    lifting.bind(op, name, order)


def _slice_end(start: int, size: int) -> int:
    return _ALL if size == -1 else start + size


def _slice_dynamically(lifting: Lifting, op: Op) -> None:
    starts, sizes = lifting.int64(op, 1), lifting.int64(op, 2)
    ends = lifting.node("Add", [starts, sizes])
    is_open = lifting.node("Less", [sizes, lifting.ints(0)])
    ends = lifting.node("Where", [is_open, lifting.ints(_ALL), ends])
    lifting.bind(op, lifting.node("Slice", [lifting.plain(op, 0), starts, ends]))


def gather(lifting: Lifting, op: Op) -> None:
    """Convert GATHER along an axis; data and indices share the first ``batch_dims`` axes."""
    x, indices = lifting.tensor(op, 0), lifting.plain(op, 1)
    axis = normalize_axis(op.options.get("axis", 0), len(x.shape))
    batch = op.options.get("batch_dims", 0)
    batch = normalize_axis(batch, len(lifting.tensor(op, 1).shape)) if batch else 0
    if batch == 0:
        lifting.bind(op, lifting.gather(op, 0, indices, axis))
        return
    rank = len(x.shape)
    moved = (*range(batch), axis, *(a for a in range(batch, rank) if a != axis))
    indices = lifting.node("Unsqueeze", [lifting.cast(indices, "int64"), lifting.ints(-1)])
    name = lifting.node("GatherND", [lifting.read(x, moved), indices], {"batch_dims": batch})
    # Axes are now: batch, those of the indices, those before the gathered axis, those after it.
    inner = len(lifting.tensor(op, 1).shape) - batch
    before = range(batch + inner, inner + axis)
    behind = range(inner + axis, inner + rank - 1)
    name = lifting.transpose(name, [*range(batch), *before, *range(batch, batch + inner), *behind])
    lifting.bind(op, name)


def embedding_lookup(lifting: Lifting, op: Op) -> None:
    """Convert EMBEDDING_LOOKUP: gather rows of a table by index."""
    lifting.bind(op, lifting.gather(op, 1, lifting.plain(op, 0), 0))


def gather_nd(lifting: Lifting, op: Op) -> None:
    """Convert GATHER_ND to GatherND."""
    lifting.bind(op, lifting.node("GatherND", [lifting.plain(op, 0), lifting.int64(op, 1)]))


def scatter_nd(lifting: Lifting, op: Op) -> None:
    """Convert SCATTER_ND to ScatterND, which adds the updates to a tensor of zeros."""
    dtype = get_inner_type(op.outputs[0])
    zero = lifting.numbers(np.zeros((), dtype))
    zeros = lifting.node("Expand", [zero, lifting.int64(op, 2)])
    inputs = [zeros, lifting.int64(op, 0), lifting.plain(op, 1)]
    lifting.bind(op, lifting.node("ScatterND", inputs, {"reduction": "add"}))


def reverse(lifting: Lifting, op: Op) -> None:
    """Convert REVERSE_V2 to Slice with steps of -1."""
    order = lifting.order(op, 0)
    axes = [order.index(normalize_axis(a, len(order))) for a in lifting.integers(op, 1)]
    count = len(axes)
    inputs = [
        lifting.read(lifting.tensor(op, 0), order),
        lifting.ints(*[-1] * count),
        lifting.ints(*[-_ALL] * count),
        lifting.ints(*axes),
        lifting.ints(*[-1] * count),
    ]
    lifting.bind(op, lifting.node("Slice", inputs), order)


def reverse_sequence(lifting: Lifting, op: Op) -> None:
    """Convert REVERSE_SEQUENCE: reverse the first entries of each sample."""
    rank = len(lifting.tensor(op, 0).shape)
    batch, time = op.options.get("batch_dim", 0), op.options["seq_dim"]
    if sorted((batch, time)) == [0, 1]:
        order = plain_order(rank)
    else:
        order = (batch, time, *(a for a in range(rank) if a not in (batch, time)))
    attributes = {"batch_axis": order.index(batch), "time_axis": order.index(time)}
    inputs = [lifting.read(lifting.tensor(op, 0), order), lifting.int64(op, 1)]
    lifting.bind(op, lifting.node("ReverseSequence", inputs, attributes), order)


def dynamic_update_slice(lifting: Lifting, op: Op) -> None:
    """Convert DYNAMIC_UPDATE_SLICE: write a block at a start index that is clamped to fit."""
    whole, block = lifting.require_shape(op, 0), lifting.require_shape(op, 1)
    room = [a - b for a, b in zip(whole, block, strict=True)]
    start = lifting.node("Min", [lifting.int64(op, 2), lifting.ints(*room)])
    start = lifting.node("Max", [start, lifting.ints(0)])
    places = np.moveaxis(np.indices(block, np.int64), 0, -1)
    indices = lifting.node("Add", [lifting.numbers(places), start])
    inputs = [lifting.plain(op, 0), indices, lifting.plain(op, 1)]
    lifting.bind(op, lifting.node("ScatterND", inputs))


def one_hot(lifting: Lifting, op: Op) -> None:
    """Convert ONE_HOT: a new axis with the on value at the index and the off value elsewhere."""
    depth = lifting.node("Reshape", [lifting.int64(op, 1), lifting.ints(1)])
    values = [lifting.node("Reshape", [lifting.plain(op, i), lifting.ints(1)]) for i in (3, 2)]
    pair, dtype = lifting.node("Concat", values, {"axis": 0}), get_inner_type(op.outputs[0])
    is_known = dtype in ("float32", "int64")
    if not is_known:  # onnxruntime has no kernel for other types
        pair = lifting.cast(pair, "int64")
    # ONNX counts negative indices from the end; TFLite has no entry for them.
    indices = lifting.int64(op, 0)
    negative = lifting.node("Less", [indices, lifting.ints(0)])
    indices = lifting.node("Where", [negative, depth, indices])
    shape = lifting.tensor(op, 0).shape
    if not shape:
        indices = lifting.node("Squeeze", [indices, lifting.ints(0)])
    axis = {"axis": op.options.get("axis", -1)}
    made = lifting.node("OneHot", [indices, depth, pair], axis)
    lifting.bind(op, made if is_known else lifting.cast(made, dtype))


LIFTS: dict[str, Rule] = {
    "DYNAMIC_UPDATE_SLICE": dynamic_update_slice,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "ONE_HOT": one_hot,
    "REVERSE_SEQUENCE": reverse_sequence,
    "REVERSE_V2": reverse,
    "SCATTER_ND": scatter_nd,
    "SLICE": slice_of,
}
