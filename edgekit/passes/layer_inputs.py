"""What the weighted operators of a graph read: second moments and means of their inputs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgekit.errors import PassRefused
from edgekit.graphs.index import attribute
from edgekit.graphs.observe import Values

# Positions of one sample that a layer is shown: neighbours tell the same.
_MAX_POSITIONS = 256
# Power of an input that the samples never showed, against the mean of all.
_LEAST_POWER = 1e-3
# Positions that wait for others before they are multiplied.
_MOST_WAITING = 512

Array = NDArray[np.float32]
N = TypeVar("N", bound=np.generic)


def not_finite(error: FloatingPointError) -> PassRefused:
    """What a pass says of a value, which the error names, whose sums are not finite."""
    return PassRefused(
        f"value {error} is not finite on the calibration samples, or too large to be squared"
    )


@dataclass
class Moments:
    """Sums over the inputs of one layer: x xᵀ [G, I, I], x [G, I], and how many."""

    square: NDArray[np.float64]
    total: NDArray[np.float64]
    count: int = 0
    _waiting: list[Array] = field(default_factory=list)

    def add(self, rows: Array) -> None:
        """Take in rows [G, positions, I]; few at a time wait, as each product costs a matrix."""
        self._waiting.append(rows)
        if sum(r.shape[1] for r in self._waiting) >= min(rows.shape[2], _MOST_WAITING):
            self.settle()

    def settle(self) -> None:
        """Take in what waits."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting, axis=1)
        self._waiting.clear()
        with np.errstate(over="ignore", invalid="ignore"):  # told of once all is in
            self.square += rows.transpose(0, 2, 1) @ rows
        self.total += rows.sum(axis=1, dtype=np.float64)
        self.count += rows.shape[1]

    @property
    def power(self) -> NDArray[np.float64]:
        """Mean of the square of each input, [G, I]; none is taken to be always zero.

        What the samples never showed a layer may come later, so its weights are worth something.
        """
        power: NDArray[np.float64] = np.diagonal(self.square, axis1=1, axis2=2)
        power = power / max(self.count, 1)
        mean = power.mean(axis=1, keepdims=True)
        return np.where(mean > 0, np.maximum(power, _LEAST_POWER * mean), 1.0)

    @property
    def hessian(self) -> NDArray[np.float64]:
        """Mean of x xᵀ, drawn towards its diagonal where few inputs were seen.

        Of fewer inputs than they have entries, all that is not seen would count for nothing.
        Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional
        covariance matrices", with the share of the diagonal told from the counts alone.
        """
        inputs = self.square.shape[-1]
        share = inputs / (inputs + max(self.count, 1))
        mean = self.square / max(self.count, 1)
        diagonal = np.diagonal(mean, axis1=1, axis2=2).copy()
        mean *= 1 - share
        mean[:, np.arange(inputs), np.arange(inputs)] += share * diagonal
        return mean

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
    def sees(self) -> Hashable:
        """What layers with the same inputs have in common: value, and windows of it."""
        node = self.node
        if node.op_type != "Conv":
            return node.input[0], self.inputs
        window = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        return node.input[0], self.groups, self.shape[1:], *window

    @property
    def inputs(self) -> int:
        """Inputs of one output value."""
        return math.prod(self.shape) // self.shape[self.axis]

    def matrix(self, weight: NDArray[np.generic]) -> NDArray[np.float64]:
        """The weight as [G, O, I]."""
        rows = np.moveaxis(weight, self.axis, 0).reshape(self.groups, -1, self.inputs)
        return rows.astype(np.float64)

    def weight(self, matrix: NDArray[N]) -> NDArray[N]:
        """The weight of a [G, O, I] matrix."""
        moved = [self.shape[self.axis], *self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, self.axis))

    @property
    def value_axis(self) -> int:
        """The axis of the output channels in what the node makes."""
        return 1 if self.node.op_type == "Conv" else -1

    def made(self, value: Array) -> Array:
        """What the node makes of ``rows``, [positions, O]: the same positions of its output."""
        moved = np.moveaxis(value, self.value_axis, -1)
        count = math.prod(moved.shape[:-1])
        step = _stride(count, max(1, value.shape[0]))
        return moved[np.unravel_index(np.arange(0, count, step), moved.shape[:-1])]

    def rows(self, value: Array) -> Array:
        """What an input tensor means to the layer, [G, positions, I]."""
        if self.node.op_type == "Conv":
            return _patches(self, value)
        flat = value.reshape(1, -1, value.shape[-1])
        return flat[:, :: _stride(flat.shape[1], max(1, value.shape[0]))]

    def results(self, value: Array) -> Array:
        """What the layer makes at the positions that ``rows`` takes, [G, positions, O]."""
        last = np.moveaxis(value, 1, -1) if self.node.op_type == "Conv" else value
        flat = last.reshape(-1, self.groups, last.shape[-1] // self.groups)
        return flat[:: _stride(len(flat), max(1, value.shape[0]))].transpose(1, 0, 2)


def _stride(positions: int, samples: int) -> int:
    """A step through the positions that meets every column and row, whatever their number."""
    step = max(1, positions // (_MAX_POSITIONS * samples))
    while math.gcd(step, positions) > 1:
        step += 1
    return step


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
        FloatingPointError: names a value that is not finite, or too large to be squared.
    """
    sight: dict[Hashable, list[str]] = {}
    for key, layer in layers.items():
        sight.setdefault(layer.sees, []).append(key)
    seen = {
        what: Moments(
            square=np.zeros((layers[keys[0]].groups, *(2 * [layers[keys[0]].inputs]))),
            total=np.zeros((layers[keys[0]].groups, layers[keys[0]].inputs)),
        )
        for what, keys in sight.items()
    }
    for values in stream:
        for what, keys in sight.items():
            layer = layers[keys[0]]
            value = values[layer.node.input[0]].astype(np.float32, copy=False)
            if not np.isfinite(value).all():
                raise FloatingPointError(layer.node.input[0])
            if value.size:
                seen[what].add(layer.rows(value))
    for what, keys in sight.items():
        seen[what].settle()
        if not np.isfinite(seen[what].square).all():
            raise FloatingPointError(layers[keys[0]].node.input[0])
    return {key: seen[what] for what, keys in sight.items() for key in keys}
