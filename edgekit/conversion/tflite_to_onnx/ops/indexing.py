"""Conversion rules of slicing, gathering, scattering, reversing and one-hot encoding."""

from __future__ import annotations

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import plain_order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_inner_type
from edgekit.conversion.tflite_to_onnx.ops.axes import normalize_axis
from edgekit.tflite.ir import Op

_ALL = 2**31 - 1


def slice_of(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SLICE: a start and a size for each axis; size -1 means up to the end."""
    x = builder.tensor(op, 0)
    starts, sizes = builder.array(op, 1), builder.array(op, 2)
    if starts is None or sizes is None:
        _slice_dynamically(builder, op)
        return
    order, shape = builder.order(op, 0), builder.shape(x)
    cut = [
        (order.index(axis), int(start), _slice_end(int(start), int(size)))
        for axis, (start, size) in enumerate(zip(starts, sizes, strict=True))
        if start or size not in (-1, shape[axis])
    ]
    name = builder.read(x, order)
    if cut:
        axes, begins, ends = zip(*cut, strict=True)
        inputs = [builder.ints(*begins), builder.ints(*ends), builder.ints(*axes)]
        name = builder.node("Slice", [name, *inputs])
    builder.bind(op, name, order)


def _slice_end(start: int, size: int) -> int:
    return _ALL if size == -1 else start + size


def _slice_dynamically(builder: OnnxGraphBuilder, op: Op) -> None:
    starts, sizes = builder.int64(op, 1), builder.int64(op, 2)
    ends = builder.node("Add", [starts, sizes])
    is_open = builder.node("Less", [sizes, builder.ints(0)])
    ends = builder.node("Where", [is_open, builder.ints(_ALL), ends])
    builder.bind(op, builder.node("Slice", [builder.plain(op, 0), starts, ends]))


def gather(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert GATHER along an axis; data and indices share the first ``batch_dims`` axes."""
    x, indices = builder.tensor(op, 0), builder.plain(op, 1)
    axis = normalize_axis(op.options.get("axis", 0), len(x.shape))
    batch = op.options.get("batch_dims", 0)
    batch = normalize_axis(batch, len(builder.tensor(op, 1).shape)) if batch else 0
    if batch == 0:
        builder.bind(op, builder.gather(op, 0, indices, axis))
        return
    rank = len(x.shape)
    moved = (*range(batch), axis, *(a for a in range(batch, rank) if a != axis))
    indices = builder.node("Unsqueeze", [builder.cast(indices, "int64"), builder.ints(-1)])
    name = builder.node("GatherND", [builder.read(x, moved), indices], {"batch_dims": batch})
    # Axes are now: batch, those of the indices, those before the gathered axis, those after it.
    inner = len(builder.tensor(op, 1).shape) - batch
    before = range(batch + inner, inner + axis)
    behind = range(inner + axis, inner + rank - 1)
    name = builder.transpose(name, [*range(batch), *before, *range(batch, batch + inner), *behind])
    builder.bind(op, name)


def embedding_lookup(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert EMBEDDING_LOOKUP: gather rows of a table by index."""
    builder.bind(op, builder.gather(op, 1, builder.plain(op, 0), 0))


def gather_nd(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert GATHER_ND to GatherND."""
    builder.bind(op, builder.node("GatherND", [builder.plain(op, 0), builder.int64(op, 1)]))


def scatter_nd(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SCATTER_ND to ScatterND, which adds the updates to a tensor of zeros."""
    dtype = get_inner_type(op.outputs[0])
    zero = builder.numbers(np.zeros((), dtype))
    zeros = builder.node("Expand", [zero, builder.int64(op, 2)])
    inputs = [zeros, builder.int64(op, 0), builder.plain(op, 1)]
    builder.bind(op, builder.node("ScatterND", inputs, {"reduction": "add"}))


def reverse(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert REVERSE_V2 to Slice with steps of -1."""
    order = builder.order(op, 0)
    axes = [order.index(normalize_axis(a, len(order))) for a in builder.integers(op, 1)]
    count = len(axes)
    inputs = [
        builder.read(builder.tensor(op, 0), order),
        builder.ints(*[-1] * count),
        builder.ints(*[-_ALL] * count),
        builder.ints(*axes),
        builder.ints(*[-1] * count),
    ]
    builder.bind(op, builder.node("Slice", inputs), order)


def reverse_sequence(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert REVERSE_SEQUENCE: reverse the first entries of each sample."""
    rank = len(builder.tensor(op, 0).shape)
    batch, time = op.options.get("batch_dim", 0), op.options["seq_dim"]
    if sorted((batch, time)) == [0, 1]:
        order = plain_order(rank)
    else:
        order = (batch, time, *(a for a in range(rank) if a not in (batch, time)))
    attributes = {"batch_axis": order.index(batch), "time_axis": order.index(time)}
    inputs = [builder.read(builder.tensor(op, 0), order), builder.int64(op, 1)]
    builder.bind(op, builder.node("ReverseSequence", inputs, attributes), order)


def dynamic_update_slice(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert DYNAMIC_UPDATE_SLICE: write a block at a start index that is clamped to fit."""
    sizes, block = builder.require_shape(op, 0), builder.require_shape(op, 1)
    last_starts = [a - b for a, b in zip(sizes, block, strict=True)]
    start = builder.node("Min", [builder.int64(op, 2), builder.ints(*last_starts)])
    start = builder.node("Max", [start, builder.ints(0)])
    positions = np.moveaxis(np.indices(block, np.int64), 0, -1)
    indices = builder.node("Add", [builder.numbers(positions), start])
    inputs = [builder.plain(op, 0), indices, builder.plain(op, 1)]
    builder.bind(op, builder.node("ScatterND", inputs))


def one_hot(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert ONE_HOT: a new axis with the on value at the index and the off value elsewhere."""
    depth = builder.node("Reshape", [builder.int64(op, 1), builder.ints(1)])
    values = [builder.node("Reshape", [builder.plain(op, i), builder.ints(1)]) for i in (3, 2)]
    pair, dtype = builder.node("Concat", values, {"axis": 0}), get_inner_type(op.outputs[0])
    is_known = dtype in ("float32", "int64")
    if not is_known:  # onnxruntime has no kernel for other types
        pair = builder.cast(pair, "int64")
    # ONNX counts negative indices from the end; TFLite has no entry for them.
    indices = builder.int64(op, 0)
    negative = builder.node("Less", [indices, builder.ints(0)])
    indices = builder.node("Where", [negative, depth, indices])
    shape = builder.tensor(op, 0).shape
    if not shape:
        indices = builder.node("Squeeze", [indices, builder.ints(0)])
    axis = {"axis": op.options.get("axis", -1)}
    result = builder.node("OneHot", [indices, depth, pair], axis)
    builder.bind(op, result if is_known else builder.cast(result, dtype))


RULES: dict[str, Rule] = {
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
