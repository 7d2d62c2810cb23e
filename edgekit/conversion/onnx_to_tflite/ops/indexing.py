"""Conversion rule of Gather, and helpers that gather by constant indices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.joining import concatenate
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.ops.padding import pad_tensor
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor, take_index
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Array, Tensor

# Frames that span more hops than this are gathered entry by entry.
_MOST_HOPS = 32


def _gather(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    axis = get_attribute(node, "axis", 0) % len(value.order)
    storage_axis = value.axis(axis)
    size = value.tensor.shape[storage_axis]
    constant_indices = builder.constant(node, 1)
    rank = len(value.order) - 1
    if constant_indices is not None and constant_indices.ndim == 0:
        result = take_index(builder, value, axis, int(constant_indices) % size)
        rest = [a for a in value.order if a != axis]
        builder.bind(node, result, tuple(a - (a > axis) for a in rest))
        return
    if (
        constant_indices is not None
        and constant_indices.ndim == 1
        and (run := _find_range(constant_indices % size)) is not None
    ):
        builder.bind(node, slice_tensor(builder, value.tensor, {storage_axis: run}), value.order)
        return
    if (
        constant_indices is not None
        and (frames := find_frames(constant_indices % size)) is not None
    ):
        result = cut_frames(builder, value.tensor, storage_axis, frames)
        before = [a + (a > axis) for a in value.order[:storage_axis]]
        after = [a + (a > axis) for a in value.order[storage_axis + 1 :]]
        builder.bind(node, result, (*before, axis, axis + 1, *after))
        return
    indices = wrap_indices(builder, builder.plain(node, 1), size)
    index_rank = len(indices.shape)
    shape = (
        *value.tensor.shape[:storage_axis],
        *indices.shape,
        *value.tensor.shape[storage_axis + 1 :],
    )
    options = {"axis": storage_axis, "batch_dims": 0}
    result = emit_move(builder, "GATHER", [value.tensor, indices], shape, options=options)
    before = [a + (index_rank - 1) * (a > axis) for a in value.order[:storage_axis]]
    after = [a + (index_rank - 1) * (a > axis) for a in value.order[storage_axis + 1 :]]
    order = (*before, *range(axis, axis + index_rank), *after)
    builder.bind(node, result, order if len(order) == rank + index_rank else None)


def _find_range(indices: Array) -> range | None:
    """Return consecutive indices as a range, or ``None`` if they are not consecutive."""
    run = range(int(indices[0]), int(indices[0]) + len(indices)) if indices.size else None
    return run if run is not None and list(indices) == list(run) else None


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Overlapping windows of a signal: entry ``first + hop * frame + position`` of an axis."""

    first: int
    hop: int
    count: int
    length: int


def find_frames(indices: Array) -> Frames | None:
    """Recognize a matrix of indices as frames that span few hops; ``None`` if it is none."""
    if indices.ndim != 2 or min(indices.shape) < 2:
        return None
    first, hop = int(indices[0, 0]), int(indices[1, 0] - indices[0, 0])
    frames = Frames(first=first, hop=hop, count=len(indices), length=indices.shape[1])
    rows = first + hop * np.arange(frames.count)[:, None] + np.arange(frames.length)
    if hop <= 0 or frames.length > _MOST_HOPS * hop or not (rows == indices).all():
        return None
    return frames


def cut_frames(
    builder: TfliteGraphBuilder, tensor: Tensor, storage_axis: int, frames: Frames
) -> Tensor:
    """Cut a stored axis into frames without storing indices.

    The signal is cut into rows of one hop. The first part of all frames is the rows from the first
    on, the second part the rows from the second on, and so forth.

    Args:
        builder: receives the operators.
        tensor: holds the signal.
        storage_axis: the stored axis.
        frames: to cut.

    Returns:
        The tensor with two axes (frame, position) in the place of the one.
    """
    hop, length = frames.hop, frames.length
    rows = frames.count + -(-length // hop) - 1
    last = frames.first + rows * hop
    lacks = max(last - tensor.shape[storage_axis], 0)
    signal = slice_tensor(builder, tensor, {storage_axis: range(frames.first, last - lacks)})
    pads = [(0, lacks if axis == storage_axis else 0) for axis in range(len(tensor.shape))]
    shape = (*tensor.shape[:storage_axis], rows, hop, *tensor.shape[storage_axis + 1 :])
    cut = builder.reshape(pad_tensor(builder, signal, pads), shape)
    parts = [
        slice_tensor(
            builder,
            cut,
            {storage_axis: range(part, part + frames.count), storage_axis + 1: range(size)},
        )
        for part in range(-(-length // hop))
        if (size := min(hop, length - part * hop))
    ]
    return concatenate(builder, parts, storage_axis + 1)


def wrap_indices(builder: TfliteGraphBuilder, indices: Tensor, size: int) -> Tensor:
    """Replace negative indices, which count from the end; constant ones become int32.

    Args:
        builder: receives the operators.
        indices: constant or computed.
        size: of the indexed axis.
    """
    if indices.data is not None:
        return builder.store((indices.data % size).astype(np.int32))
    dtype = indices.dtype
    return builder.emit(
        "FLOOR_MOD", [indices, builder.store(np.asarray(size, dtype))], indices.shape, dtype=dtype
    )


def gather_constant(builder: TfliteGraphBuilder, value: Value, axis: int, indices: Array) -> Tensor:
    """Gather entries along an ONNX axis by constant indices, in the value's storage order."""
    storage_axis = value.axis(axis)
    shape = (
        *value.tensor.shape[:storage_axis],
        len(indices),
        *value.tensor.shape[storage_axis + 1 :],
    )
    options = {"axis": storage_axis, "batch_dims": 0}
    stored_indices = builder.store(indices.astype(np.int32))
    return emit_move(builder, "GATHER", [value.tensor, stored_indices], shape, options=options)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {"Gather": _gather}
