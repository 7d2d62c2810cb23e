"""Pads around values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Array, Tensor
from edgekit.bridge.layout import Value
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.moving import moved
from edgekit.bridge.rules.slicing import sliced

Pads = list[tuple[int, int]]
_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _pad(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    pads = _pads(low, node, value)
    mode = attr(node, "mode", "constant")
    if mode == "constant":
        cut = {
            axis: range(-min(before, 0), size + min(after, 0))
            for axis, (size, (before, after)) in enumerate(
                zip(value.tensor.shape, pads, strict=True)
            )
        }
        inner = sliced(low, value.tensor, cut)
        wider = [(max(before, 0), max(after, 0)) for before, after in pads]
        made = padded(low, inner, wider, _filling(low, node, inner.dtype))
    elif mode in _MODES:
        made = _from_indices(low, value.tensor, pads, _MODES[mode])
    else:
        raise low.refusal(node, f"has the unknown mode {mode}")
    low.bind(node, made, value.order)


def _pads(low: Lowering, node: NodeProto, value: Value) -> Pads:
    """Pads of every stored axis; before opset 11 an attribute says them."""
    given = low.integers(node, 1) if low.has(node, 1) else attr(node, "pads")
    given = attr(node, "paddings") if given is None else given
    rank = len(value.order)
    axes = low.integers(node, 3) if low.has(node, 3) else range(rank)
    half = len(given) // 2
    found: Pads = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        found[value.axis(axis)] = (int(given[place]), int(given[place + half]))
    return found


def _filling(low: Lowering, node: NodeProto, dtype: str) -> Tensor | None:
    """What is put around; ``None`` for zeros."""
    if not low.has(node, 2):
        number = attr(node, "value", 0.0)
        return low.stored(np.asarray(number, dtype)) if number else None
    array: Array | None = low.constant(node, 2)
    if array is None:
        return low.reshaped(low.plain(node, 2), ())
    return low.stored(array.reshape(())) if array.any() else None


def padded(low: Lowering, tensor: Tensor, pads: Pads, filling: Tensor | None = None) -> Tensor:
    """A tensor with entries around it.

    Args:
        low: the graph in the making.
        tensor: to be padded.
        pads: how many before and after along each stored axis.
        filling: a scalar; ``None`` for zeros.
    """
    if not any(before or after for before, after in pads):
        return tensor
    shape = tuple(b + size + a for size, (b, a) in zip(tensor.shape, pads, strict=True))
    counts = low.stored(np.asarray(pads, np.int32))
    if filling is None:
        return moved(low, "PAD", [tensor, counts], shape)
    return moved(low, "PADV2", [tensor, counts, filling], shape, data=(0, 2))


def _from_indices(low: Lowering, tensor: Tensor, pads: Pads, mode: str) -> Tensor:
    """Pads that repeat entries: each axis gathered by the indices that the mode gives."""
    for axis, (before, after) in enumerate(pads):
        if not (before or after):
            continue
        size = tensor.shape[axis]
        inner = np.arange(max(-before, 0), size + min(after, 0))
        indices = _padded_indices(inner, max(before, 0), max(after, 0), mode)
        shape = (*tensor.shape[:axis], len(indices), *tensor.shape[axis + 1 :])
        options = {"axis": axis, "batch_dims": 0}
        taken = low.stored(indices.astype(np.int32))
        tensor = moved(low, "GATHER", [tensor, taken], shape, options=options)
    return tensor


def _padded_indices(inner: Array, before: int, after: int, mode: str) -> Array:
    if mode == "edge":
        return np.pad(inner, (before, after), mode="edge")
    if mode == "wrap":
        return np.pad(inner, (before, after), mode="wrap")
    return np.pad(inner, (before, after), mode="reflect")


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"Pad": _pad}
