"""Observers of activation ranges: min-max, moving average, percentile, entropy and MSE."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from edgekit.pass_settings import Estimator

BINS = 2048
LEVELS = 256
# Rate of the moving average after the first hundred batches.
_FORGETS = 0.01
_GRID = np.linspace(0.2, 1.0, 81)
_ENTROPY_STEP = 16

Range = tuple[float, float]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchExtremes:
    """Smallest entry, largest entry and number of entries of one value in one batch."""

    low: float
    high: float
    size: int


@dataclass(kw_only=True)
class Extremes:
    """Extremes of each value over all batches, their moving average, and the largest size."""

    whole: dict[str, Range] = field(default_factory=dict)
    average: dict[str, Range] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)

    def update(self, name: str, seen: BatchExtremes) -> None:
        """Add the extremes of one batch; an entry that is not finite is an error.

        Raises:
            FloatingPointError: an extreme is not finite; its text is the name of the value.
        """
        if not seen.size:
            return
        if not (math.isfinite(seen.low) and math.isfinite(seen.high)):
            raise FloatingPointError(name)
        low, high = self.whole.get(name, (seen.low, seen.high))
        self.whole[name] = min(low, seen.low), max(high, seen.high)
        self.size[name] = max(self.size.get(name, 0), seen.size)
        self.batches[name] = self.batches.get(name, 0) + 1
        rate = max(1 / self.batches[name], _FORGETS)
        low, high = self.average.get(name, (0.0, 0.0))
        self.average[name] = low + rate * (seen.low - low), high + rate * (seen.high - high)


@dataclass(kw_only=True)
class Histograms:
    """Histograms of values with fixed edges between known extremes."""

    extremes: Extremes
    counts: dict[str, Counts] = field(default_factory=dict)

    def update(self, name: str, entries: NDArray[np.generic]) -> None:
        """Add entries to the histogram of a value."""
        low, high = self.extremes.whole.get(name, (0.0, 0.0))
        if high <= low or not entries.size:
            return
        flat = entries.ravel().astype(np.float64)
        index = ((flat - low) * (BINS / (high - low))).astype(np.int64)
        counts = np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)
        self.counts[name] = self.counts.get(name, 0) + counts


def estimate(
    estimators: Iterable[Estimator], name: str, histograms: Histograms, percentile: float
) -> dict[Estimator, Range]:
    """Estimate the range of one value by each estimator; (0, 0) for a value without entries.

    Args:
        estimators: names of the estimators.
        name: name of the value.
        histograms: histograms with the extremes of all values.
        percentile: share of the entries that the percentile estimator keeps, in %.
    """
    return {each: _estimate_range(each, name, histograms, percentile) for each in estimators}


def _estimate_range(
    estimator: Estimator, name: str, histograms: Histograms, percentile: float
) -> Range:
    """Estimate the range of one value; its extremes if it has no histogram."""
    whole = histograms.extremes.whole.get(name, (0.0, 0.0))
    if estimator == "average":
        return histograms.extremes.average.get(name, whole)
    counts = histograms.counts.get(name)
    if estimator == "minmax" or counts is None:
        return whole
    if estimator == "percentile":
        return percentile_range(whole, counts, percentile)
    if estimator == "entropy":
        return entropy_range(whole, counts)
    if estimator == "mse":
        return mse_range(whole, counts)
    assert_never(estimator)


def percentile_range(whole: Range, counts: Counts, percentile: float) -> Range:
    """Find the range that holds ``percentile`` % of the entries; both tails lose the same share.

    Args:
        whole: smallest and largest entry.
        counts: histogram of ``BINS`` bins between them.
        percentile: share of the entries within the range, in %.
    """
    edges = np.linspace(*whole, BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    tail = (100 - percentile) / 200
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return float(edges[first]), float(edges[min(last + 1, BINS)])


def mse_range(whole: Range, counts: Counts) -> Range:
    """Find the range with the least squared error of 8-bit quantization, by grid search.

    The upper end is searched first, then the lower one; the range always holds zero.

    Args:
        whole: smallest and largest entry.
        counts: histogram of ``BINS`` bins between them.
    """
    edges = np.linspace(*whole, BINS + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    filled = counts > 0
    centers, counts = centers[filled], counts[filled]
    low, high = min(whole[0], 0.0), max(whole[1], 0.0)
    highs = _GRID * high
    errors = _squared_errors(np.full_like(highs, low), highs, centers, counts)
    high = float(highs[np.argmin(errors)])
    lows = _GRID * low
    errors = _squared_errors(lows, np.full_like(lows, high), centers, counts)
    return float(lows[np.argmin(errors)]), high


def _squared_errors(
    lows: NDArray[np.float64],
    highs: NDArray[np.float64],
    centers: NDArray[np.float64],
    counts: Counts,
) -> NDArray[np.float64]:
    """Compute the error of each range [R] on a histogram [B]; infinite where the range is empty."""
    scales = (highs - lows)[:, None] / (LEVELS - 1)
    safe = np.where(scales > 0, scales, 1.0)
    steps = np.clip(np.rint((centers - lows[:, None]) / safe), 0, LEVELS - 1)
    errors: NDArray[np.float64] = np.square(steps * safe + lows[:, None] - centers) @ counts
    return np.where(scales[:, 0] > 0, errors, np.inf)


def entropy_range(whole: Range, counts: Counts) -> Range:
    """Find the range whose 8-bit histogram has the least Kullback-Leibler divergence.

    The range is cut at the same distance from zero on both sides. The histogram with its outliers
    in the outermost bins is compared with itself in 256 levels.

    Source: Migacz 2017, "8-bit Inference with TensorRT".

    Args:
        whole: smallest and largest entry.
        counts: histogram of ``BINS`` bins between them.
    """
    edges = np.linspace(*whole, BINS + 1)
    counts = _level_spikes(counts, int(np.searchsorted(edges, 0.0, side="right")) - 1)
    largest = max(abs(whole[0]), abs(whole[1]))
    best, least = whole, math.inf
    for share in np.linspace(1.0, 0.0, BINS // _ENTROPY_STEP, endpoint=False):
        low, high = max(whole[0], -largest * share), min(whole[1], largest * share)
        first = int(np.searchsorted(edges, low, side="right")) - 1
        last = int(np.searchsorted(edges, high, side="left"))
        first, last = max(first, 0), min(last, BINS)
        if last - first < LEVELS // 2:
            break
        divergence = _divergence(counts, first, last)
        if divergence < least:
            best, least = (float(edges[first]), float(edges[last])), divergence
    return best


def _level_spikes(counts: Counts, zero: int) -> Counts:
    """Reduce counts that pile up at zero and at both ends to the neighboring count.

    Activation functions make these spikes, which 8 bits hold exactly; spread over a level they
    would outweigh everything else.
    """
    level = counts.copy()
    for spike, neighbor in ((0, 1), (BINS - 1, BINS - 2), (zero, min(zero + 1, BINS - 1))):
        if 0 <= spike < BINS:
            level[spike] = min(counts[spike], level[neighbor])
    return level if level.any() else counts


def _divergence(counts: Counts, first: int, last: int) -> float:
    """Compute the KL divergence of bins ``first`` to ``last`` from their 256-level version."""
    inside = counts[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    levels = np.arange(len(inside)) * LEVELS // max(len(inside), LEVELS)
    filled = inside > 0
    sums = np.bincount(levels, inside, LEVELS)
    shared = np.bincount(levels, filled, LEVELS)
    spread = np.where(filled, (sums / np.maximum(shared, 1))[levels], 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    # Clipping may fill a bin that was empty. q is zero there; a small value keeps it finite.
    q = np.where(q > 0, q, 1e-9)
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())
