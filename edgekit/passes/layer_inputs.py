"""What the weighted operators of a graph read: second moments and means of their inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgekit.graphs.index import attribute
from edgekit.graphs.observe import Values

# Positions of one sample that a layer is shown: neighbours tell the same.
_MAX_POSITIONS = 256

Array = NDArray[np.float32]


@dataclass
class Moments:
    """Sums over the inputs of one layer: x xᵀ [G, I, I], x [G, I], and how many."""

    square: NDArray[np.float64]
    total: NDArray[np.float64]
    count: int = 0

    @property
    def hessian(self) -> NDArray[np.float64]:
        """Mean of x xᵀ."""
        return self.square / max(self.count, 1)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of x."""
        return self.total / max(self.count, 1)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node with a stored weight, as the matrix product it is. ``shape`` is the weight's."""

    node: NodeProto
    shape: tuple[int, ...]
    axis: int  # of the output channels

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 otherwise."""
        group = attribute(self.node, "group", 1)
        return int(group) if isinstance(group, int) and self.node.op_type == "Conv" else 1

    @property
    def inputs(self) -> int:
        """Inputs of one output value."""
        return math.prod(self.shape) // self.shape[self.axis]

    def matrix(self, weight: NDArray[np.generic]) -> NDArray[np.float64]:
        """The weight as [G, O, I]."""
        rows = np.moveaxis(weight, self.axis, 0).reshape(self.groups, -1, self.inputs)
        return rows.astype(np.float64)

    def weight(self, matrix: NDArray[np.int8]) -> NDArray[np.int8]:
        """The weight of a [G, O, I] matrix."""
        moved = [self.shape[self.axis], *self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, self.axis))

    def rows(self, value: Array) -> Array:
        """What an input tensor means to the layer, [G, positions, I]."""
        if self.node.op_type == "Conv":
            return _patches(self, value)
        flat = value.reshape(1, -1, value.shape[-1])
        return flat[:, :: _stride(flat.shape[1], max(1, value.shape[0]))]


def _stride(positions: int, samples: int) -> int:
    return max(1, positions // (_MAX_POSITIONS * samples))


def _patches(layer: Layer, value: Array) -> Array:
    """The windows that a convolution of any rank sees, [G, positions, I]."""
    kernel = layer.shape[2:]
    ones = [1] * len(kernel)
    strides = _ints(layer.node, "strides", ones)
    dilations = _ints(layer.node, "dilations", ones)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(value, [(0, 0), (0, 0), *_pads(layer.node, value.shape[2:], spans, strides)])
    axes = tuple(range(2, value.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
    every = [slice(None), slice(None), *(slice(None, None, s) for s in strides)]
    taps = [slice(None, None, d) for d in dilations]
    windows = windows[(*every, *taps)]  # [N, C, positions..., kernel...]
    rank = len(kernel)
    moved = windows.transpose(0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    count = math.prod(moved.shape[: 1 + rank])
    step = _stride(count, value.shape[0])
    picked = np.unravel_index(np.arange(0, count, step), moved.shape[: 1 + rank])
    rows = moved[picked].reshape(len(picked[0]), layer.groups, layer.inputs)
    return rows.transpose(1, 0, 2)


def _pads(
    node: NodeProto, shape: tuple[int, ...], spans: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Zeros before and after each spatial axis (ONNX Conv)."""
    automatic = attribute(node, "auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        needed = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, span, stride in zip(shape, spans, strides, strict=True)
        ]
        halves = [(n // 2, n - n // 2) for n in needed]
        return halves if automatic == b"SAME_UPPER" else [(b, a) for a, b in halves]
    pads = (
        _ints(node, "pads", [0] * (2 * len(spans)))
        if automatic == b"NOTSET"
        else [0] * (2 * len(spans))
    )
    return list(zip(pads[: len(spans)], pads[len(spans) :], strict=True))


def _ints(node: NodeProto, name: str, default: list[int]) -> list[int]:
    found = attribute(node, name, default)
    return list(found) if isinstance(found, list) else default


def gather_moments(layers: dict[str, Layer], stream: Iterable[Values]) -> dict[str, Moments]:
    """Moments of each layer's input over a stream of batches, in constant memory.

    Args:
        layers: by any key.
        stream: the values that the layers read, batch by batch.

    Raises:
        FloatingPointError: names a value that is not finite.
    """
    moments = {
        key: Moments(
            square=np.zeros((layer.groups, layer.inputs, layer.inputs)),
            total=np.zeros((layer.groups, layer.inputs)),
        )
        for key, layer in layers.items()
    }
    for values in stream:
        for key, layer in layers.items():
            value = values[layer.node.input[0]].astype(np.float32, copy=False)
            if not np.isfinite(value).all():
                raise FloatingPointError(layer.node.input[0])
            if value.size:
                _add(moments[key], layer.rows(value))
    return moments


def _add(moments: Moments, rows: Array) -> None:
    moments.square += rows.transpose(0, 2, 1) @ rows
    moments.total += rows.sum(axis=1, dtype=np.float64)
    moments.count += rows.shape[1]
