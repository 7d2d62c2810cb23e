"""Summaries of raw latencies: percentiles with intervals that respect autocorrelation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit_agent.worker_results import Latency

# A p99 is an order statistic: at 95 % confidence it needs n >= log(.05)/log(.99) = 299 to be
# bounded at all and 459 to be bounded on both sides.
MIN_RUNS_P99 = 459
_RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Latency of one inference in ms; intervals are 95 %, by block bootstrap within processes.

    ``quiet_p50_ms`` is the median of the fastest process. Other load on a machine only ever slows a
    model down, so this is the figure to compare two models by.
    """

    p50_ms: float
    quiet_p50_ms: float
    p50_interval_ms: tuple[float, float]
    p95_ms: float
    p95_interval_ms: tuple[float, float]
    p99_ms: float | None  # None below 459 runs
    runs: int
    effective_runs: float
    processes: int
    doubts: tuple[str, ...]


def summarize(records: Sequence[Latency]) -> LatencySummary:
    """Summarize the raw latencies of one or more processes.

    Raises:
        ValueError: There are no values.
    """
    return _summarize(tuple(records))


@functools.lru_cache(maxsize=256)
def _summarize(records: tuple[Latency, ...]) -> LatencySummary:
    series = [np.asarray(r.values_ms) for r in records if r.values_ms]
    if not series:
        raise ValueError("no latencies to summarize")
    values = np.concatenate(series)
    p50, p95 = np.percentile(values, [50, 95])
    low, high = np.percentile(_bootstrap(series), [2.5, 97.5], axis=0)
    return LatencySummary(
        p50_ms=float(p50),
        quiet_p50_ms=min(float(np.median(s)) for s in series),
        p50_interval_ms=(float(low[0]), float(high[0])),
        p95_ms=float(p95),
        p95_interval_ms=(float(low[1]), float(high[1])),
        p99_ms=float(np.percentile(values, 99)) if values.size >= MIN_RUNS_P99 else None,
        runs=int(values.size),
        effective_runs=sum(compute_effective_size(s) for s in series),
        processes=len(series),
        doubts=tuple(sorted({d for r in records for d in r.doubts})),
    )


def compute_effective_size(series: NDArray[np.float64]) -> float:
    """Compute the effective sample size of a series: n / (1 + 2 sum of positive autocorrelations).

    The sum ends at the first lag whose autocorrelation is not positive (Geyer 1992).
    """
    n = series.size
    centered = series - series.mean()
    power = float(centered @ centered)
    if n < 4 or power == 0:
        return float(n)
    total = 0.0
    for lag in range(1, n // 2):
        correlation = float(centered[:-lag] @ centered[lag:]) / power
        if correlation <= 0:
            break
        total += correlation
    return n / (1 + 2 * total)


def _bootstrap(series: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Resample p50 and p95: processes with replacement, then blocks within each.

    The block length is n^(1/3), or longer if the autocorrelation requires it (Künsch 1989).
    """
    rng = np.random.default_rng(0)
    lengths = [_choose_block_length(s) for s in series]
    draws = np.empty((_RESAMPLES, 2))
    for i in range(_RESAMPLES):
        picked = rng.integers(len(series), size=len(series))
        drawn = [_draw_blocks(series[p], lengths[p], rng) for p in picked]
        draws[i] = np.percentile(np.concatenate(drawn), [50, 95])
    return draws


def _choose_block_length(series: NDArray[np.float64]) -> int:
    n = int(series.size)
    return min(n, max(round(math.cbrt(n)), round(n / compute_effective_size(series))))


def _draw_blocks(
    series: NDArray[np.float64], length: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    n = series.size
    starts = rng.integers(n - length + 1, size=-(-n // length))
    index = (starts[:, None] + np.arange(length)).ravel()[:n]
    drawn: NDArray[np.float64] = series[index]
    return drawn
