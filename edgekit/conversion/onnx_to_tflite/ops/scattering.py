"""Conversion rules that gather and scatter by whole index tuples, on flattened rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.indexing import cut_frames, find_frames, wrap_indices
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Array, Shape, Tensor

# TFLite operator that combines an entry with its update, by the node's reduction.
_COMBINE_OPS = {"add": "ADD", "mul": "MUL", "max": "MAXIMUM", "min": "MINIMUM"}
_SUMMED_TYPES = ("float32", "int32", "int64")


def _gather_elements(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    data = builder.plain(node, 0)
    flat_indices = _flatten_element_indices(
        builder, builder.plain(node, 1), data.shape, get_attribute(node, "axis", 0)
    )
    flat = builder.reshape(data, (math.prod(data.shape),))
    options = {"axis": 0, "batch_dims": 0}
    builder.bind(
        node,
        emit_move(builder, "GATHER", [flat, flat_indices], flat_indices.shape, options=options),
    )


def _flatten_element_indices(
    builder: TfliteGraphBuilder, indices: Tensor, shape: Shape, axis: int
) -> Tensor:
    """Compute the flat indices of entries that differ from their own position along one axis."""
    axis %= len(shape)
    strides = _compute_strides(shape)
    grid = np.indices(indices.shape, np.int32)
    base = sum(
        (
            grid[other_axis] * strides[other_axis]
            for other_axis in range(len(shape))
            if other_axis != axis
        ),
        start=np.zeros(indices.shape, np.int32),
    )
    axis_indices = builder.cast(wrap_indices(builder, indices, shape[axis]), "int32")
    return _add_base(builder, _scale(builder, axis_indices, strides[axis]), base)


def _compute_strides(shape: Shape) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _scale(builder: TfliteGraphBuilder, tensor: Tensor, factor: int) -> Tensor:
    if tensor.data is not None:
        return builder.store((tensor.data * factor).astype(np.int32))
    if factor == 1:
        return tensor
    return builder.emit("MUL", [tensor, builder.int32(factor)], tensor.shape, dtype="int32")


def _add_base(builder: TfliteGraphBuilder, tensor: Tensor, base: Array) -> Tensor:
    if tensor.data is not None:
        return builder.store((tensor.data + base).astype(np.int32))
    if not base.any():
        return tensor
    inputs = [tensor, builder.store(base.astype(np.int32))]
    return builder.emit("ADD", inputs, tensor.shape, dtype="int32")


def _gather_nd(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    data, indices = builder.plain(node, 0), builder.plain(node, 1)
    batch = get_attribute(node, "batch_dims", 0)
    depth = batch + indices.shape[-1]
    flat_indices = _flatten_index_tuples(builder, indices, data.shape[batch:depth])
    if batch:
        step = math.prod(data.shape[batch:depth])
        count = math.prod(data.shape[:batch])
        base = np.arange(count, dtype=np.int32) * step
        base = base.reshape(data.shape[:batch] + (1,) * (len(flat_indices.shape) - batch))
        flat_indices = _add_base(builder, flat_indices, np.broadcast_to(base, flat_indices.shape))
    rows = builder.reshape(data, (math.prod(data.shape[:depth]), *data.shape[depth:]))
    if flat_indices.data is not None and (frames := find_frames(flat_indices.data)) is not None:
        builder.bind(node, cut_frames(builder, rows, 0, frames))
        return
    shape = (*flat_indices.shape, *data.shape[depth:])
    options = {"axis": 0, "batch_dims": 0}
    builder.bind(node, emit_move(builder, "GATHER", [rows, flat_indices], shape, options=options))


def _flatten_index_tuples(
    builder: TfliteGraphBuilder, indices: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Compute row indices from index tuples along the last axis."""
    strides = np.asarray(_compute_strides(tuple(sizes)), np.int32)
    if indices.data is not None:
        return builder.store(((indices.data % np.asarray(sizes)) @ strides).astype(np.int32))
    shape = indices.shape
    wrapped = builder.cast(indices, "int32")
    wrapped = builder.emit("FLOOR_MOD", [wrapped, builder.int32(list(sizes))], shape, dtype="int32")
    scaled = builder.emit("MUL", [wrapped, builder.store(strides)], shape, dtype="int32")
    axes = builder.int32([len(shape) - 1])
    return builder.emit(
        "SUM", [scaled, axes], shape[:-1], dtype="int32", options={"keep_dims": False}
    )


def _scatter_nd(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    data, indices, updates = (builder.plain(node, position) for position in range(3))
    depth = indices.shape[-1]
    flat_indices = _flatten_index_tuples(builder, indices, data.shape[:depth])
    rest = data.shape[depth:]
    rows = builder.reshape(data, (math.prod(data.shape[:depth]), *rest))
    builder.bind(
        node,
        builder.reshape(_apply_updates(builder, node, rows, flat_indices, updates), data.shape),
    )


def _scatter_elements(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    data, indices, updates = (builder.plain(node, position) for position in range(3))
    flat_indices = _flatten_element_indices(
        builder, indices, data.shape, get_attribute(node, "axis", 0)
    )
    flat = builder.reshape(data, (math.prod(data.shape),))
    builder.bind(
        node,
        builder.reshape(_apply_updates(builder, node, flat, flat_indices, updates), data.shape),
    )


def _apply_updates(
    builder: TfliteGraphBuilder,
    node: NodeProto,
    rows: Tensor,
    flat_indices: Tensor,
    updates: Tensor,
) -> Tensor:
    """Write updates into rows, or combine them with the entries there (``reduction``)."""
    dtype = rows.dtype
    working = dtype if dtype in _SUMMED_TYPES else "int32"
    count = math.prod(flat_indices.shape)
    rows = builder.cast(rows, working)
    flat_indices = builder.reshape(flat_indices, (count,))
    updates = builder.reshape(builder.cast(updates, working), (count, *rows.shape[1:]))
    reduction = get_attribute(node, "reduction", "none")
    if reduction == "add":
        result = builder.emit(
            "ADD", [rows, _scatter(builder, flat_indices, updates, rows)], rows.shape, dtype=working
        )
        return builder.cast(result, dtype)
    batches = [np.arange(count)]
    if reduction != "none":
        batches = _split_repeated_updates(builder, node, flat_indices)
    for chosen in batches:
        rows = _put_updates(
            builder, rows, flat_indices, updates, chosen, _COMBINE_OPS.get(reduction)
        )
    return builder.cast(rows, dtype)


def _split_repeated_updates(
    builder: TfliteGraphBuilder, node: NodeProto, flat_indices: Tensor
) -> list[Array]:
    """Split the updates into rounds in which no index occurs twice."""
    if flat_indices.data is None:
        reduction = get_attribute(node, "reduction")
        why = f"has the reduction {reduction} at indices that are known only at run time"
        raise builder.refusal(node, why)
    occurrences: dict[int, int] = {}
    batches: list[list[int]] = []
    for update, position in enumerate(flat_indices.data.tolist()):
        batch = occurrences.get(position, 0)
        occurrences[position] = batch + 1
        if batch == len(batches):
            batches.append([])
        batches[batch].append(update)
    return [np.asarray(chosen) for chosen in batches]


def _put_updates(
    builder: TfliteGraphBuilder,
    rows: Tensor,
    flat_indices: Tensor,
    updates: Tensor,
    chosen: Array,
    combine_op: str | None,
) -> Tensor:
    if len(chosen) != flat_indices.shape[0]:
        options = {"axis": 0, "batch_dims": 0}
        chosen_indices = builder.int32(chosen.tolist())
        shape = (len(chosen), *rows.shape[1:])
        updates = emit_move(builder, "GATHER", [updates, chosen_indices], shape, options=options)
        flat_indices = builder.store(np.asarray(flat_indices.data)[chosen])
    scattered = _scatter(builder, flat_indices, updates, rows)
    if combine_op:
        scattered = builder.emit(combine_op, [rows, scattered], rows.shape, dtype=rows.dtype)
    mask = _mark_updated(builder, flat_indices, rows)
    return builder.emit("SELECT_V2", [mask, scattered, rows], rows.shape, dtype=rows.dtype)


def _scatter(
    builder: TfliteGraphBuilder, flat_indices: Tensor, updates: Tensor, rows: Tensor
) -> Tensor:
    """Scatter updates into zeros; updates at the same index are summed."""
    column = builder.reshape(flat_indices, (flat_indices.shape[0], 1))
    inputs = [column, updates, builder.int32(rows.shape)]
    return builder.emit("SCATTER_ND", inputs, rows.shape, dtype=rows.dtype)


def _mark_updated(builder: TfliteGraphBuilder, flat_indices: Tensor, rows: Tensor) -> Tensor:
    """Mark the rows that receive an update."""
    shape = (rows.shape[0],) + (1,) * (len(rows.shape) - 1)
    if flat_indices.data is not None:
        mask = np.zeros(rows.shape[0], bool)
        mask[flat_indices.data] = True
        return builder.store(mask.reshape(shape))
    column = builder.reshape(flat_indices, (flat_indices.shape[0], 1))
    ones = builder.store(np.ones((flat_indices.shape[0], *shape[1:]), np.float32))
    counts = builder.emit("SCATTER_ND", [column, ones, builder.int32(shape)], shape)
    return builder.emit("GREATER", [counts, builder.float32(0.5)], shape, dtype="bool")


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
