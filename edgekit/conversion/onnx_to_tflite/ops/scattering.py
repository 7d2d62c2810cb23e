"""Conversion rules that gather and scatter by whole index tuples, on flattened rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.indexing import cut_frames, find_frames, wrap_indices
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Array, Shape, Tensor

# TFLite operator that combines an entry with its update, by the node's reduction.
_JOINED = {"add": "ADD", "mul": "MUL", "max": "MAXIMUM", "min": "MINIMUM"}
_SUMMED_TYPES = ("float32", "int32", "int64")


def _gather_elements(low: Lowering, node: NodeProto) -> None:
    data = low.plain(node, 0)
    places = _flatten_element_indices(
        low, low.plain(node, 1), data.shape, get_attribute(node, "axis", 0)
    )
    flat = low.reshape(data, (math.prod(data.shape),))
    options = {"axis": 0, "batch_dims": 0}
    low.bind(node, emit_move(low, "GATHER", [flat, places], places.shape, options=options))


def _flatten_element_indices(low: Lowering, indices: Tensor, shape: Shape, axis: int) -> Tensor:
    """Compute the flat indices of entries that differ from their own position along one axis."""
    axis %= len(shape)
    strides = _compute_strides(shape)
    grid = np.indices(indices.shape, np.int32)
    base = sum(
        (grid[each] * strides[each] for each in range(len(shape)) if each != axis),
        start=np.zeros(indices.shape, np.int32),
    )
    along = low.cast(wrap_indices(low, indices, shape[axis]), "int32")
    return _add_base(low, _scale(low, along, strides[axis]), base)


def _compute_strides(shape: Shape) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _scale(low: Lowering, tensor: Tensor, factor: int) -> Tensor:
    if tensor.data is not None:
        return low.store((tensor.data * factor).astype(np.int32))
    if factor == 1:
        return tensor
    return low.emit("MUL", [tensor, low.int32(factor)], tensor.shape, dtype="int32")


def _add_base(low: Lowering, tensor: Tensor, base: Array) -> Tensor:
    if tensor.data is not None:
        return low.store((tensor.data + base).astype(np.int32))
    if not base.any():
        return tensor
    inputs = [tensor, low.store(base.astype(np.int32))]
    return low.emit("ADD", inputs, tensor.shape, dtype="int32")


def _gather_nd(low: Lowering, node: NodeProto) -> None:
    data, indices = low.plain(node, 0), low.plain(node, 1)
    batch = get_attribute(node, "batch_dims", 0)
    depth = batch + indices.shape[-1]
    places = _flatten_index_tuples(low, indices, data.shape[batch:depth])
    if batch:
        step = math.prod(data.shape[batch:depth])
        count = math.prod(data.shape[:batch])
        base = np.arange(count, dtype=np.int32) * step
        base = base.reshape(data.shape[:batch] + (1,) * (len(places.shape) - batch))
        places = _add_base(low, places, np.broadcast_to(base, places.shape))
    rows = low.reshape(data, (math.prod(data.shape[:depth]), *data.shape[depth:]))
    if places.data is not None and (frames := find_frames(places.data)) is not None:
        low.bind(node, cut_frames(low, rows, 0, frames))
        return
    shape = (*places.shape, *data.shape[depth:])
    options = {"axis": 0, "batch_dims": 0}
    low.bind(node, emit_move(low, "GATHER", [rows, places], shape, options=options))


def _flatten_index_tuples(low: Lowering, indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Compute row indices from index tuples along the last axis."""
    strides = np.asarray(_compute_strides(tuple(sizes)), np.int32)
    if indices.data is not None:
        return low.store(((indices.data % np.asarray(sizes)) @ strides).astype(np.int32))
    shape = indices.shape
    whole = low.cast(indices, "int32")
    whole = low.emit("FLOOR_MOD", [whole, low.int32(list(sizes))], shape, dtype="int32")
    scaled = low.emit("MUL", [whole, low.store(strides)], shape, dtype="int32")
    axes = low.int32([len(shape) - 1])
    return low.emit("SUM", [scaled, axes], shape[:-1], dtype="int32", options={"keep_dims": False})


def _scatter_nd(low: Lowering, node: NodeProto) -> None:
    data, indices, updates = (low.plain(node, place) for place in range(3))
    depth = indices.shape[-1]
    places = _flatten_index_tuples(low, indices, data.shape[:depth])
    rest = data.shape[depth:]
    rows = low.reshape(data, (math.prod(data.shape[:depth]), *rest))
    low.bind(node, low.reshape(_apply_updates(low, node, rows, places, updates), data.shape))


def _scatter_elements(low: Lowering, node: NodeProto) -> None:
    data, indices, updates = (low.plain(node, place) for place in range(3))
    places = _flatten_element_indices(low, indices, data.shape, get_attribute(node, "axis", 0))
    flat = low.reshape(data, (math.prod(data.shape),))
    low.bind(node, low.reshape(_apply_updates(low, node, flat, places, updates), data.shape))


def _apply_updates(
    low: Lowering, node: NodeProto, rows: Tensor, places: Tensor, updates: Tensor
) -> Tensor:
    """Write updates into rows, or combine them with the entries there (``reduction``)."""
    dtype = rows.dtype
    working = dtype if dtype in _SUMMED_TYPES else "int32"
    count = math.prod(places.shape)
    rows = low.cast(rows, working)
    places = low.reshape(places, (count,))
    updates = low.reshape(low.cast(updates, working), (count, *rows.shape[1:]))
    reduction = get_attribute(node, "reduction", "none")
    if reduction == "add":
        made = low.emit(
            "ADD", [rows, _scatter(low, places, updates, rows)], rows.shape, dtype=working
        )
        return low.cast(made, dtype)
    rounds = [np.arange(count)]
    if reduction != "none":
        rounds = _split_rounds(low, node, places)
    for chosen in rounds:
        rows = _put_updates(low, rows, places, updates, chosen, _JOINED.get(reduction))
    return low.cast(rows, dtype)


def _split_rounds(low: Lowering, node: NodeProto, places: Tensor) -> list[Array]:
    """Split the updates into rounds in which no index occurs twice."""
    if places.data is None:
        reduction = get_attribute(node, "reduction")
        why = f"has the reduction {reduction} at indices that are known only at run time"
        raise low.refusal(node, why)
    seen: dict[int, int] = {}
    rounds: list[list[int]] = []
    for update, place in enumerate(places.data.tolist()):
        turn = seen.get(place, 0)
        seen[place] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(update)
    return [np.asarray(each) for each in rounds]


def _put_updates(
    low: Lowering, rows: Tensor, places: Tensor, updates: Tensor, chosen: Array, joined: str | None
) -> Tensor:
    if len(chosen) != places.shape[0]:
        options = {"axis": 0, "batch_dims": 0}
        taken = low.int32(chosen.tolist())
        shape = (len(chosen), *rows.shape[1:])
        updates = emit_move(low, "GATHER", [updates, taken], shape, options=options)
        places = low.store(np.asarray(places.data)[chosen])
    spread = _scatter(low, places, updates, rows)
    if joined:
        spread = low.emit(joined, [rows, spread], rows.shape, dtype=rows.dtype)
    mask = _mark_updated(low, places, rows)
    return low.emit("SELECT_V2", [mask, spread, rows], rows.shape, dtype=rows.dtype)


def _scatter(low: Lowering, places: Tensor, updates: Tensor, rows: Tensor) -> Tensor:
    """Scatter updates into zeros; updates at the same index are summed."""
    column = low.reshape(places, (places.shape[0], 1))
    inputs = [column, updates, low.int32(rows.shape)]
    return low.emit("SCATTER_ND", inputs, rows.shape, dtype=rows.dtype)


def _mark_updated(low: Lowering, places: Tensor, rows: Tensor) -> Tensor:
    """Mark the rows that receive an update."""
    shape = (rows.shape[0],) + (1,) * (len(rows.shape) - 1)
    if places.data is not None:
        mask = np.zeros(rows.shape[0], bool)
        mask[places.data] = True
        return low.store(mask.reshape(shape))
    column = low.reshape(places, (places.shape[0], 1))
    ones = low.store(np.ones((places.shape[0], *shape[1:]), np.float32))
    counts = low.emit("SCATTER_ND", [column, ones, low.int32(shape)], shape)
    return low.emit("GREATER", [counts, low.float32(0.5)], shape, dtype="bool")


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
