"""Activation ranges from a stream of samples, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.recipe import QuantizeStatic

_BINS = 2048
# A histogram needs no more of one value per sample; min and max always see all of it.
_MAX_VALUES = 1 << 15

Values = dict[str, NDArray[np.generic]]
Range = tuple[float, float]


@dataclass
class Extremes:
    """Smallest and largest entry of each value, over all batches."""

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)

    def update(self, values: Values) -> None:
        """Take in one batch; an entry that is not finite is an error of the model."""
        for name, value in values.items():
            if not value.size:
                continue
            low, high = float(value.min()), float(value.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise FloatingPointError(name)
            self.low[name] = min(low, self.low.get(name, low))
            self.high[name] = max(high, self.high.get(name, high))


@dataclass
class Histograms:
    """Fixed-edge histograms between known extremes."""

    extremes: Extremes
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def update(self, values: Values) -> None:
        """Take in one batch."""
        for name, value in values.items():
            if not value.size:
                continue
            low, high = self.extremes.low[name], self.extremes.high[name]
            if high <= low:
                continue
            flat = value.ravel()[:: _stride(value.size)].astype(np.float64)
            index = ((flat - low) * (_BINS / (high - low))).astype(np.int64)
            counts = np.bincount(np.minimum(index, _BINS - 1), minlength=_BINS)
            self.counts[name] = self.counts.get(name, 0) + counts


def _stride(size: int) -> int:
    """A step through a value that meets all of its channels, whichever axis they lie on."""
    stride = max(1, size // _MAX_VALUES)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


def find_ranges(passes: Iterator[Iterable[Values]], settings: QuantizeStatic) -> dict[str, Range]:
    """The range of every value.

    Args:
        passes: yields the stream of batches anew for each pass over the samples.
        settings: which estimator.
    """
    extremes = Extremes()
    for values in next(passes):
        extremes.update(values)
    whole = {name: (extremes.low[name], extremes.high[name]) for name in extremes.low}
    if settings.ranges == "minmax":
        return whole
    histograms = Histograms(extremes)
    for values in next(passes):
        histograms.update(values)
    return {name: _narrow(whole[name], histograms.counts.get(name), settings) for name in whole}


def _narrow(whole: Range, counts: NDArray[np.int64] | None, settings: QuantizeStatic) -> Range:
    if counts is None:
        return whole
    if settings.ranges == "percentile":
        return percentile_range(whole, counts, settings.percentile)
    return mse_range(whole, counts)


def percentile_range(whole: Range, counts: NDArray[np.int64], percentile: float) -> Range:
    """The range that holds ``percentile`` % of the values, the rest split between both tails."""
    edges = np.linspace(*whole, _BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    tail = (100 - percentile) / 200
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return float(edges[first]), float(edges[min(last + 1, _BINS)])


def mse_range(whole: Range, counts: NDArray[np.int64]) -> Range:
    """The shrunken range with the least squared error of 8-bit quantisation, by grid search.

    Each end is shrunk on its own, top first; a shrunken range always holds zero.
    """
    edges = np.linspace(*whole, _BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    low, high = min(whole[0], 0.0), max(whole[1], 0.0)
    grid = np.linspace(0.2, 1.0, 81)
    high = min((high * g for g in grid), key=lambda h: _squared_error(low, h, centres, counts))
    low = min((low * g for g in grid), key=lambda v: _squared_error(v, high, centres, counts))
    return low, high


def _squared_error(
    low: float, high: float, centres: NDArray[np.float64], counts: NDArray[np.int64]
) -> float:
    scale = (high - low) / 255
    if scale <= 0:
        return float("inf")
    rounded = np.clip(np.rint((centres - low) / scale), 0, 255) * scale + low
    return float((np.square(rounded - centres) * counts).sum())
