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
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Array, Shape, Tensor

Pads = list[tuple[int, int]]
# The kernel takes up to five axes: two padded ones, and at most three merged groups of others.
_MOST_AXES, _AT_ONCE = 5, 2
_MODES = ("reflect", "edge", "wrap")


def _pad(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    pads = _read_pads(builder, node, value)
    mode = get_attribute(node, "mode", "constant")
    if mode == "constant":
        cut = {
            axis: range(-min(before, 0), size + min(after, 0))
            for axis, (size, (before, after)) in enumerate(
                zip(value.tensor.shape, pads, strict=True)
            )
        }
        inner = slice_tensor(builder, value.tensor, cut)
        added_pads = [(max(before, 0), max(after, 0)) for before, after in pads]
        result = pad_tensor(builder, inner, added_pads, _read_filling(builder, node, inner.dtype))
    elif mode in _MODES:
        result = _pad_by_repeating(builder, value.tensor, pads, mode)
    else:
        raise builder.refusal(node, f"has the unknown mode {mode}")
    builder.bind(node, result, value.order)


def _read_pads(builder: TfliteGraphBuilder, node: NodeProto, value: Value) -> Pads:
    """Read the pads of every stored axis, from an attribute before opset 11."""
    pads = builder.integers(node, 1) if builder.has(node, 1) else get_attribute(node, "pads")
    pads = get_attribute(node, "paddings") if pads is None else pads
    rank = len(value.order)
    axes = builder.integers(node, 3) if builder.has(node, 3) else range(rank)
    half = len(pads) // 2
    padding: Pads = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        padding[value.axis(axis)] = (int(pads[position]), int(pads[position + half]))
    return padding


def _read_filling(builder: TfliteGraphBuilder, node: NodeProto, dtype: str) -> Tensor | None:
    """Read the fill value; ``None`` for zeros."""
    if not builder.has(node, 2):
        number = get_attribute(node, "value", 0.0)
        return builder.store(np.asarray(number, dtype)) if number else None
    array: Array | None = builder.constant(node, 2)
    if array is None:
        return builder.reshape(builder.plain(node, 2), ())
    return builder.store(array.reshape(())) if array.any() else None


def pad_tensor(
    builder: TfliteGraphBuilder, tensor: Tensor, pads: Pads, filling: Tensor | None = None
) -> Tensor:
    """Pad a tensor with a constant.

    Args:
        builder: receives the operators.
        tensor: to be padded.
        pads: number of entries before and after, for each stored axis.
        filling: a scalar; ``None`` for zeros.
    """
    axes = [axis for axis, pair in enumerate(pads) if any(pair)]
    if len(pads) <= _MOST_AXES:
        return _emit_pad(builder, tensor, pads, filling) if axes else tensor
    for start in range(0, len(axes), _AT_ONCE):
        tensor = _pad_merged(builder, tensor, pads, axes[start : start + _AT_ONCE], filling)
    return tensor


def _pad_merged(
    builder: TfliteGraphBuilder,
    tensor: Tensor,
    pads: Pads,
    axes: Sequence[int],
    filling: Tensor | None,
) -> Tensor:
    """Pad some axes, with neighboring other axes merged into one."""
    groups = [list(g) for _, g in groupby(range(len(pads)), lambda a: a if a in axes else -1)]
    fewer = tuple(math.prod(tensor.shape[axis] for axis in group) for group in groups)
    counts = [pads[group[0]] if group[0] in axes else (0, 0) for group in groups]
    result = _emit_pad(builder, builder.reshape(tensor, fewer), counts, filling)
    chosen = [pair if axis in axes else (0, 0) for axis, pair in enumerate(pads)]
    return builder.reshape(result, _padded_shape(tensor.shape, chosen))


def _emit_pad(
    builder: TfliteGraphBuilder, tensor: Tensor, pads: Pads, filling: Tensor | None
) -> Tensor:
    counts = builder.store(np.asarray(pads, np.int32))
    shape = _padded_shape(tensor.shape, pads)
    if filling is None:
        return emit_move(builder, "PAD", [tensor, counts], shape)
    return emit_move(builder, "PADV2", [tensor, counts, filling], shape, data=(0, 2))


def _padded_shape(shape: Shape, pads: Pads) -> Shape:
    return tuple(b + size + a for size, (b, a) in zip(shape, pads, strict=True))


def _pad_by_repeating(builder: TfliteGraphBuilder, tensor: Tensor, pads: Pads, mode: str) -> Tensor:
    """Pad a tensor with repeated entries, axis by axis.

    Only the padding is gathered by index. The indices of a whole axis would be stored in the file,
    and followed one by one at run time.
    """
    for axis, (before, after) in enumerate(pads):
        if not (before or after):
            continue
        kept_range = range(max(-before, 0), tensor.shape[axis] + min(after, 0))
        first, last = max(before, 0), max(after, 0)
        indices = np.pad(np.arange(kept_range.start, kept_range.stop), (first, last), mode=mode)  # type: ignore[call-overload]
        parts = [
            _gather_entries(builder, tensor, indices[:first], axis),
            slice_tensor(builder, tensor, {axis: kept_range}),
            _gather_entries(builder, tensor, indices[len(indices) - last :], axis),
        ]
        tensor = concatenate(builder, [part for part in parts if part is not None], axis)
    return tensor


def _gather_entries(
    builder: TfliteGraphBuilder, tensor: Tensor, indices: Array, axis: int
) -> Tensor | None:
    """Gather entries of a stored axis; ``None`` if there are no indices."""
    if not len(indices):
        return None
    shape = (*tensor.shape[:axis], len(indices), *tensor.shape[axis + 1 :])
    stored_indices = builder.store(indices.astype(np.int32))
    options = {"axis": axis, "batch_dims": 0}
    return emit_move(builder, "GATHER", [tensor, stored_indices], shape, options=options)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {"Pad": _pad}
