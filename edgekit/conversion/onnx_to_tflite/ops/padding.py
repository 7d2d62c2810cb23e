"""Conversion rule of Pad, and its helpers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.joining import concatenate
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Array, Shape, Tensor

Pads = list[tuple[int, int]]
# The kernel takes up to five axes: two padded ones, and at most three merged groups of others.
_MOST_AXES, _AT_ONCE = 5, 2
_MODES = ("reflect", "edge", "wrap")


def _pad(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    pads = _read_pads(low, node, value)
    mode = get_attribute(node, "mode", "constant")
    if mode == "constant":
        cut = {
            axis: range(-min(before, 0), size + min(after, 0))
            for axis, (size, (before, after)) in enumerate(
                zip(value.tensor.shape, pads, strict=True)
            )
        }
        inner = slice_tensor(low, value.tensor, cut)
        wider = [(max(before, 0), max(after, 0)) for before, after in pads]
        made = pad_tensor(low, inner, wider, _read_filling(low, node, inner.dtype))
    elif mode in _MODES:
        made = _pad_by_repeating(low, value.tensor, pads, mode)
    else:
        raise low.refusal(node, f"has the unknown mode {mode}")
    low.bind(node, made, value.order)


def _read_pads(low: Lowering, node: NodeProto, value: Value) -> Pads:
    """Read the pads of every stored axis, from an attribute before opset 11."""
    given = low.integers(node, 1) if low.has(node, 1) else get_attribute(node, "pads")
    given = get_attribute(node, "paddings") if given is None else given
    rank = len(value.order)
    axes = low.integers(node, 3) if low.has(node, 3) else range(rank)
    half = len(given) // 2
    found: Pads = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        found[value.axis(axis)] = (int(given[place]), int(given[place + half]))
    return found


def _read_filling(low: Lowering, node: NodeProto, dtype: str) -> Tensor | None:
    """Read the fill value; ``None`` for zeros."""
    if not low.has(node, 2):
        number = get_attribute(node, "value", 0.0)
        return low.store(np.asarray(number, dtype)) if number else None
    array: Array | None = low.constant(node, 2)
    if array is None:
        return low.reshape(low.plain(node, 2), ())
    return low.store(array.reshape(())) if array.any() else None


def pad_tensor(low: Lowering, tensor: Tensor, pads: Pads, filling: Tensor | None = None) -> Tensor:
    """Pad a tensor with a constant.

    Args:
        low: receives the operators.
        tensor: to be padded.
        pads: number of entries before and after, for each stored axis.
        filling: a scalar; ``None`` for zeros.
    """
    axes = [axis for axis, pair in enumerate(pads) if any(pair)]
    if len(pads) <= _MOST_AXES:
        return _emit_pad(low, tensor, pads, filling) if axes else tensor
    for start in range(0, len(axes), _AT_ONCE):
        tensor = _pad_merged(low, tensor, pads, axes[start : start + _AT_ONCE], filling)
    return tensor


def _pad_merged(
    low: Lowering, tensor: Tensor, pads: Pads, axes: Sequence[int], filling: Tensor | None
) -> Tensor:
    """Pad some axes, with neighboring other axes merged into one."""
    groups = [list(g) for _, g in groupby(range(len(pads)), lambda a: a if a in axes else -1)]
    fewer = tuple(math.prod(tensor.shape[axis] for axis in group) for group in groups)
    counts = [pads[group[0]] if group[0] in axes else (0, 0) for group in groups]
    made = _emit_pad(low, low.reshape(tensor, fewer), counts, filling)
    chosen = [pair if axis in axes else (0, 0) for axis, pair in enumerate(pads)]
    return low.reshape(made, _padded_shape(tensor.shape, chosen))


def _emit_pad(low: Lowering, tensor: Tensor, pads: Pads, filling: Tensor | None) -> Tensor:
    counts = low.store(np.asarray(pads, np.int32))
    shape = _padded_shape(tensor.shape, pads)
    if filling is None:
        return emit_move(low, "PAD", [tensor, counts], shape)
    return emit_move(low, "PADV2", [tensor, counts, filling], shape, data=(0, 2))


def _padded_shape(shape: Shape, pads: Pads) -> Shape:
    return tuple(b + size + a for size, (b, a) in zip(shape, pads, strict=True))


def _pad_by_repeating(low: Lowering, tensor: Tensor, pads: Pads, mode: str) -> Tensor:
    """Pad a tensor with repeated entries, axis by axis.

    Only the padding is gathered by index. The indices of a whole axis would be stored in the file,
    and followed one by one at run time.
    """
    for axis, (before, after) in enumerate(pads):
        if not (before or after):
            continue
        kept = range(max(-before, 0), tensor.shape[axis] + min(after, 0))
        first, last = max(before, 0), max(after, 0)
        indices = np.pad(np.arange(kept.start, kept.stop), (first, last), mode=mode)  # type: ignore[call-overload]
        parts = [
            _gather_entries(low, tensor, indices[:first], axis),
            slice_tensor(low, tensor, {axis: kept}),
            _gather_entries(low, tensor, indices[len(indices) - last :], axis),
        ]
        tensor = concatenate(low, [part for part in parts if part is not None], axis)
    return tensor


def _gather_entries(low: Lowering, tensor: Tensor, indices: Array, axis: int) -> Tensor | None:
    """Gather entries of a stored axis; ``None`` if there are no indices."""
    if not len(indices):
        return None
    shape = (*tensor.shape[:axis], len(indices), *tensor.shape[axis + 1 :])
    taken = low.store(indices.astype(np.int32))
    options = {"axis": axis, "batch_dims": 0}
    return emit_move(low, "GATHER", [tensor, taken], shape, options=options)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"Pad": _pad}
