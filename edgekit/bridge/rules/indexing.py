"""Entries taken by index, and put back by index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Array, Tensor
from edgekit.bridge.layout import Value
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.moving import moved
from edgekit.bridge.rules.slicing import sliced, taken_at


def _gather(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = attr(node, "axis", 0) % len(value.order)
    place = value.axis(axis)
    size = value.tensor.shape[place]
    known = low.constant(node, 1)
    rank = len(value.order) - 1
    if known is not None and known.ndim == 0:
        made = taken_at(low, value, axis, int(known) % size)
        rest = [a for a in value.order if a != axis]
        low.bind(node, made, tuple(a - (a > axis) for a in rest))
        return
    if known is not None and known.ndim == 1 and (run := _as_range(known % size)) is not None:
        low.bind(node, sliced(low, value.tensor, {place: run}), value.order)
        return
    indices = not_negative(low, low.plain(node, 1), size)
    more = len(indices.shape)
    shape = (*value.tensor.shape[:place], *indices.shape, *value.tensor.shape[place + 1 :])
    options = {"axis": place, "batch_dims": 0}
    made = moved(low, "GATHER", [value.tensor, indices], shape, options=options)
    before = [a + (more - 1) * (a > axis) for a in value.order[:place]]
    after = [a + (more - 1) * (a > axis) for a in value.order[place + 1 :]]
    order = (*before, *range(axis, axis + more), *after)
    low.bind(node, made, order if len(order) == rank + more else None)


def _as_range(indices: Array) -> range | None:
    """Indices that follow one another, as a range."""
    run = range(int(indices[0]), int(indices[0]) + len(indices)) if indices.size else None
    return run if run is not None and list(indices) == list(run) else None


def not_negative(low: Lowering, indices: Tensor, size: int) -> Tensor:
    """Indices that may count from the end, from the start; int32 where they are stored."""
    if indices.data is not None:
        return low.stored((indices.data % size).astype(np.int32))
    dtype = indices.dtype
    return low.emit(
        "FLOOR_MOD", [indices, low.stored(np.asarray(size, dtype))], indices.shape, dtype=dtype
    )


def gathered(low: Lowering, value: Value, axis: int, indices: Array) -> Tensor:
    """Entries of an ONNX axis by stored indices, in the value's own storage order."""
    place = value.axis(axis)
    shape = (*value.tensor.shape[:place], len(indices), *value.tensor.shape[place + 1 :])
    options = {"axis": place, "batch_dims": 0}
    taken = low.stored(indices.astype(np.int32))
    return moved(low, "GATHER", [value.tensor, taken], shape, options=options)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"Gather": _gather}
