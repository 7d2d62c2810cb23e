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
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Array, Tensor

# Frames that span more hops than this are gathered entry by entry.
_MOST_HOPS = 32


def _gather(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = get_attribute(node, "axis", 0) % len(value.order)
    place = value.axis(axis)
    size = value.tensor.shape[place]
    known = low.constant(node, 1)
    rank = len(value.order) - 1
    if known is not None and known.ndim == 0:
        made = take_index(low, value, axis, int(known) % size)
        rest = [a for a in value.order if a != axis]
        low.bind(node, made, tuple(a - (a > axis) for a in rest))
        return
    if known is not None and known.ndim == 1 and (run := _find_range(known % size)) is not None:
        low.bind(node, slice_tensor(low, value.tensor, {place: run}), value.order)
        return
    if known is not None and (frames := find_frames(known % size)) is not None:
        made = cut_frames(low, value.tensor, place, frames)
        before = [a + (a > axis) for a in value.order[:place]]
        after = [a + (a > axis) for a in value.order[place + 1 :]]
        low.bind(node, made, (*before, axis, axis + 1, *after))
        return
    indices = wrap_indices(low, low.plain(node, 1), size)
    more = len(indices.shape)
    shape = (*value.tensor.shape[:place], *indices.shape, *value.tensor.shape[place + 1 :])
    options = {"axis": place, "batch_dims": 0}
    made = emit_move(low, "GATHER", [value.tensor, indices], shape, options=options)
    before = [a + (more - 1) * (a > axis) for a in value.order[:place]]
    after = [a + (more - 1) * (a > axis) for a in value.order[place + 1 :]]
    order = (*before, *range(axis, axis + more), *after)
    low.bind(node, made, order if len(order) == rank + more else None)


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
    found = Frames(first=first, hop=hop, count=len(indices), length=indices.shape[1])
    rows = first + hop * np.arange(found.count)[:, None] + np.arange(found.length)
    if hop <= 0 or found.length > _MOST_HOPS * hop or not (rows == indices).all():
        return None
    return found


def cut_frames(low: Lowering, tensor: Tensor, place: int, frames: Frames) -> Tensor:
    """Cut a stored axis into frames without storing indices.

    The signal is cut into rows of one hop. The first part of all frames is the rows from the first
    on, the second part the rows from the second on, and so forth.

    Args:
        low: receives the operators.
        tensor: holds the signal.
        place: the stored axis.
        frames: to cut.

    Returns:
        The tensor with two axes (frame, position) in the place of the one.
    """
    hop, length = frames.hop, frames.length
    rows = frames.count + -(-length // hop) - 1
    last = frames.first + rows * hop
    lacks = max(last - tensor.shape[place], 0)
    signal = slice_tensor(low, tensor, {place: range(frames.first, last - lacks)})
    pads = [(0, lacks if axis == place else 0) for axis in range(len(tensor.shape))]
    shape = (*tensor.shape[:place], rows, hop, *tensor.shape[place + 1 :])
    cut = low.reshape(pad_tensor(low, signal, pads), shape)
    parts = [
        slice_tensor(low, cut, {place: range(at, at + frames.count), place + 1: range(size)})
        for at in range(-(-length // hop))
        if (size := min(hop, length - at * hop))
    ]
    return concatenate(low, parts, place + 1)


def wrap_indices(low: Lowering, indices: Tensor, size: int) -> Tensor:
    """Replace negative indices, which count from the end; constant ones become int32.

    Args:
        low: receives the operators.
        indices: constant or computed.
        size: of the indexed axis.
    """
    if indices.data is not None:
        return low.store((indices.data % size).astype(np.int32))
    dtype = indices.dtype
    return low.emit(
        "FLOOR_MOD", [indices, low.store(np.asarray(size, dtype))], indices.shape, dtype=dtype
    )


def gather_constant(low: Lowering, value: Value, axis: int, indices: Array) -> Tensor:
    """Gather entries along an ONNX axis by constant indices, in the value's storage order."""
    place = value.axis(axis)
    shape = (*value.tensor.shape[:place], len(indices), *value.tensor.shape[place + 1 :])
    options = {"axis": place, "batch_dims": 0}
    taken = low.store(indices.astype(np.int32))
    return emit_move(low, "GATHER", [value.tensor, taken], shape, options=options)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"Gather": _gather}
