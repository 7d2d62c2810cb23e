"""Best factorization of each layer, by the second moments of its inputs or outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from edgekit.compression.low_rank.factors import (
    Way,
    factorize_by_inputs,
    factorize_by_outputs,
    factorize_spatially,
)
from edgekit.compression.low_rank.layers import ALIGNED, Price, SplittableLayer
from edgekit.compression.numerics import Doubles
from edgekit.compression.reconstruction.moments import Moments, shrink_to_diagonal
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.activations import observe
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Largest size of the second moments in memory at once.
_MOMENT_BYTES = 1 << 30
_DOUBLE = 8
Of = Literal["parameters", "macs"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Layer with its best factorization, and the price of each rank."""

    whole: SplittableLayer
    way: Way
    price: Price

    @property
    def name(self) -> str:
        """Return the name of the weight."""
        return self.whole.stored.name

    @property
    def full(self) -> int:
        """Return the full rank."""
        if self.price is self.whole.channels:
            return min(self.whole.outputs, self.whole.layer.inputs)
        outputs, inputs, height, width = self.whole.layer.shape
        return min(outputs * width, inputs * height)

    def get_size(self, of: Of) -> int:
        """Return the parameters of the whole layer, or its multiply-accumulates on one sample."""
        size = self.whole.stored.weight.size
        return size * self.whole.positions if of == "macs" else size

    def part(self, rank: int, of: Of) -> float:
        """Compute the share of parameters or multiply-accumulates that a rank keeps."""
        each = self.price.macs if of == "macs" else self.price.parameters
        return rank * each / self.whole.stored.weight.size

    def ranks(self, keep: float, of: Of) -> list[int]:
        """List the ranks that save something: multiples of 8, and smaller ones where needed."""
        most = min(int(self.whole.bound(self.price)), len(self.way.errors) - 1)
        aligned = list(range(ALIGNED, most + 1, ALIGNED))
        if aligned and self.part(ALIGNED, of) <= keep:
            return aligned
        return [*range(1, min(ALIGNED, most + 1)), *aligned]


def split_layers(
    index: GraphIndex,
    layers: Sequence[SplittableLayer],
    parts: Sequence[Samples],
    keep: float,
    tick: Tick,
) -> Iterator[Split]:
    """Yield the best factorization of each layer at a share of its multiply-accumulates.

    Args:
        index: the graph.
        layers: the layers to factorize.
        parts: samples for the second moments; without any, the weights alone decide.
        keep: share of the multiply-accumulates at which factorizations are compared.
        tick: called with the number of samples done.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    if not parts:
        for whole in layers:
            size = whole.moment_size
            eye = np.broadcast_to(np.eye(size), (whole.layer.groups, size, size))
            if whole.reads_outputs:
                matrix = whole.stored.matrix
                eye = matrix @ matrix.transpose(0, 2, 1)
            yield _choose_split(whole, eye, np.zeros((whole.layer.groups, size)), keep)
        return
    for some in _iter_lots(layers):
        moments = _gather_moments(index, some, parts, tick)
        for whole, seen in zip(some, moments, strict=True):
            yield _build_split(index, whole, seen, keep)


def _iter_lots(layers: Sequence[SplittableLayer]) -> Iterator[list[SplittableLayer]]:
    """Yield the layers in lots whose moments fit in memory together."""
    lot: list[SplittableLayer] = []
    held = 0
    for whole in layers:
        needed = _DOUBLE * whole.layer.groups * whole.moment_size**2
        if lot and held + needed > _MOMENT_BYTES:
            yield lot
            lot, held = [], 0
        lot.append(whole)
        held += needed
    yield lot


def _gather_moments(
    index: GraphIndex, layers: Sequence[SplittableLayer], parts: Sequence[Samples], tick: Tick
) -> list[Moments]:
    found = [Moments.create_empty(whole.layer.groups, whole.moment_size) for whole in layers]
    read = [_list_observed_values(whole) for whole in layers]
    names = list(dict.fromkeys(chain.from_iterable(read)))
    for values in observe(index.proto, names, parts, tick=lambda n, of: tick("inputs", n, of)):
        for some, whole, moments in zip(read, layers, found, strict=True):
            for name, layer in zip(some, (whole.layer, *whole.others), strict=True):
                value = values[name].astype(np.float32, copy=False)
                if not np.isfinite(value).all():
                    raise FloatingPointError(name)
                if value.size:
                    moments.add(layer.results(value) if whole.reads_outputs else layer.rows(value))
    for some, moments in zip(read, found, strict=True):
        moments.settle()
        if not np.isfinite(moments.square).all():
            raise FloatingPointError(some[0])
    return found


def _list_observed_values(whole: SplittableLayer) -> list[str]:
    """List the value to observe at a layer, and at each other layer with its weight."""
    if whole.reads_outputs:
        return [whole.layer.node.output[0]]
    return [layer.read for layer in (whole.layer, *whole.others)]


def _build_split(index: GraphIndex, whole: SplittableLayer, moments: Moments, keep: float) -> Split:
    mean, second = moments.mean, moments.square / max(moments.count, 1)
    if whole.takes_mean:
        second -= mean[:, :, None] * mean[:, None, :]
    else:
        mean = np.zeros_like(mean)
    if whole.reads_outputs and whole.takes_mean:
        weighted = whole.stored.weighted
        bias = weighted.bias if weighted else None
        if bias is not None:
            mean = mean - index.float_constant(bias).reshape(mean.shape)
    if not whole.reads_outputs:
        second = shrink_to_diagonal(second, moments.count)
    return _choose_split(whole, second, mean, keep)


def _choose_split(whole: SplittableLayer, covariance: Doubles, mean: Doubles, keep: float) -> Split:
    matrix = whole.stored.matrix
    by = factorize_by_outputs if whole.reads_outputs else factorize_by_inputs
    plain = Split(whole=whole, way=by(matrix, covariance, mean), price=whole.channels)
    if whole.spatial is None or whole.bound(whole.spatial) < 1:
        return plain
    most = int(whole.bound(whole.spatial))
    way = factorize_spatially(whole.stored.weight.astype(np.float64), covariance[0], mean[0], most)
    if way is None:
        return plain
    other = Split(whole=whole, way=way, price=whole.spatial)
    if whole.bound(whole.channels) < 1:
        return other
    return min((plain, other), key=lambda split: _interpolate_error(split, keep))


def _interpolate_error(split: Split, keep: float) -> float:
    """Interpolate the error at a share of the multiply-accumulates between the nearest ranks."""
    rank = keep * math.prod(split.whole.layer.shape) / split.price.macs
    errors = split.way.errors
    return float(np.interp(rank, np.arange(len(errors)), errors))
