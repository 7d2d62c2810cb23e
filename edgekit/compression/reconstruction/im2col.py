"""Extraction of the input windows of Conv and ConvTranspose of any rank (im2col)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgekit.onnx_graph.graph_index import read_attribute

# Number of positions of one sample that are used: neighboring positions are similar.
_MAX_POSITIONS = 256

Array = NDArray[np.float32]
Borders = list[tuple[int, int]]


def choose_position_stride(positions: int, samples: int) -> int:
    """Choose a stride over positions that is coprime to their number, so it visits every column.

    Args:
        positions: number of positions of all samples.
        samples: number of samples.
    """
    step = max(1, positions // (_MAX_POSITIONS * samples))
    while math.gcd(step, positions) > 1:
        step += 1
    return step


def extract_windows(node: NodeProto, value: Array, kernel: Sequence[int], groups: int) -> Array:
    """Extract the windows of a Conv or ConvTranspose, [G, positions, I], in output order.

    The windows of a ConvTranspose come from its input with zeros inserted between positions, for a
    flipped kernel.

    Args:
        node: the convolution.
        value: its input, [N, C, ...].
        kernel: spatial sizes of the kernel.
        groups: number of channel groups.
    """
    if node.op_type == "ConvTranspose":
        strides = _get_ints(node, "strides", [1] * len(kernel))
        borders = _compute_transposed_borders(node, value.shape[2:], kernel)
        return _slide_windows(
            node, _insert_zeros(value, strides), kernel, groups, borders, [1] * len(kernel)
        )
    strides = _get_ints(node, "strides", [1] * len(kernel))
    borders = _compute_pads(node, value.shape[2:], _compute_spans(node, kernel), strides)
    return _slide_windows(node, value, kernel, groups, borders, strides)


def _slide_windows(
    node: NodeProto,
    value: Array,
    kernel: Sequence[int],
    groups: int,
    borders: Borders,
    strides: Sequence[int],
) -> Array:
    inside = [slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in
              zip(value.shape[2:], borders, strict=True)]  # fmt: skip
    value = value[(slice(None), slice(None), *inside)]
    padded = np.pad(value, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in borders)])
    axes = tuple(range(2, value.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, _compute_spans(node, kernel), axis=axes
    )
    every = [slice(None), slice(None), *(slice(None, None, s) for s in strides)]
    taps = [slice(None, None, d) for d in _get_ints(node, "dilations", [1] * len(kernel))]
    windows = windows[(*every, *taps)]  # [N, C, positions..., kernel...]
    rank = len(kernel)
    moved = windows.transpose(0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    count = math.prod(moved.shape[: 1 + rank])
    step = choose_position_stride(count, value.shape[0])
    picked = np.unravel_index(np.arange(0, count, step), moved.shape[: 1 + rank])
    rows = moved[picked].reshape(len(picked[0]), groups, -1)
    return rows.transpose(1, 0, 2)


def _compute_spans(node: NodeProto, kernel: Sequence[int]) -> list[int]:
    dilations = _get_ints(node, "dilations", [1] * len(kernel))
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def _insert_zeros(value: Array, strides: Sequence[int]) -> Array:
    """Insert stride - 1 zeros between neighboring positions."""
    sizes = [s * (n - 1) + 1 for n, s in zip(value.shape[2:], strides, strict=True)]
    wide = np.zeros((*value.shape[:2], *sizes), value.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = value
    return wide


def _compute_transposed_borders(
    node: NodeProto, shape: Sequence[int], kernel: Sequence[int]
) -> Borders:
    """Compute the padding of the zero-inserted input of a ConvTranspose; negative numbers crop."""
    rank = len(kernel)
    strides, more = (
        _get_ints(node, "strides", [1] * rank),
        _get_ints(node, "output_padding", [0] * rank),
    )
    pads = _get_ints(node, "pads", [0] * (2 * rank))
    asked = _get_ints(node, "output_shape", [])
    automatic = read_attribute(node, "auto_pad", b"NOTSET")
    if not asked and automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        asked = [n * s for n, s in zip(shape, strides, strict=True)]
    borders = []
    for i, span in enumerate(_compute_spans(node, kernel)):
        before, after = (0, 0) if automatic == b"VALID" else (pads[i], pads[rank + i])
        if asked:
            whole = strides[i] * (shape[i] - 1) + more[i] + span - asked[-rank:][i]
            half = whole // 2
            before, after = (half, whole - half) if automatic == b"SAME_UPPER" else (
                whole - half, half)  # fmt: skip
        borders.append((span - 1 - before, span - 1 - after + more[i]))
    return borders


def _compute_pads(
    node: NodeProto, shape: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> Borders:
    """Compute the padding before and after each spatial axis (ONNX Conv)."""
    automatic = read_attribute(node, "auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        needed = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, span, stride in zip(shape, spans, strides, strict=True)
        ]
        halves = [(n // 2, n - n // 2) for n in needed]
        return halves if automatic == b"SAME_UPPER" else [(b, a) for a, b in halves]
    pads = (
        _get_ints(node, "pads", [0] * (2 * len(spans)))
        if automatic == b"NOTSET"
        else [0] * (2 * len(spans))
    )
    return list(zip(pads[: len(spans)], pads[len(spans) :], strict=True))


def _get_ints(node: NodeProto, name: str, default: list[int]) -> list[int]:
    found = read_attribute(node, name, default)
    return list(found) if isinstance(found, list) else default
