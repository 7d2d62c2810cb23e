"""Ratio of the run times of two models, on a machine that may be busy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from edgekit.progress import Count

_SECONDS = 0.4  # duration of all runs of a measurement
# A timing of a fast model covers several runs, so that it takes about this long.
_LEAST_TIMING, _MOST_RUNS = 2e-3, 100
# A model faster than this is run once before each timing: the other one has emptied the caches.
_WARMED = 2e-2
_LEAST_ROUNDS, _MOST_ROUNDS = 6, 60
_NOTHING = 1e-30
# Ratios above the first are reported; those below the second are measured twice, as a busy machine
# causes noise of several percent.
_SLOWER, _CERTAINLY_SLOWER = 1.05, 1.15


def measure_slowdown(
    reference: Callable[[], object], other: Callable[[], object], tick: Count | None = None
) -> float:
    """Measure how many times as long ``other`` takes; 1 where that may be noise, or it is faster.

    Args:
        reference: runs the first model.
        other: runs the second model.
        tick: called with the number of finished pairs of runs.
    """
    ratio = measure_time_ratio(reference, other, tick)
    if _SLOWER < ratio <= _CERTAINLY_SLOWER:
        ratio = min(ratio, measure_time_ratio(reference, other, tick))
    return ratio if ratio > _SLOWER else 1.0


def measure_time_ratio(
    reference: Callable[[], object], other: Callable[[], object], tick: Count | None = None
) -> float:
    """Measure the ratio of run times, other over reference.

    Both run in turn, and CPU time of this thread is measured. Other work on the machine, which
    shares its caches, only adds to it: so the fastest runs of each are compared, and the smaller
    ratio of two halves of the rounds counts.

    Args:
        reference: runs the first model.
        other: runs the second model.
        tick: called with the number of finished pairs of runs.
    """
    reference()
    other()
    fastest = max(min(measure_thread_seconds(reference), measure_thread_seconds(other)), _NOTHING)
    runs = int(min(max(_LEAST_TIMING / fastest, 1), _MOST_RUNS))
    spent = max(
        measure_thread_seconds(reference, runs) + measure_thread_seconds(other, runs), _NOTHING
    )
    rounds = int(min(max(_SECONDS / (runs * spent), _LEAST_ROUNDS), _MOST_ROUNDS))
    ratios: list[float] = []
    half = math.ceil(rounds / 2)
    for first_of_half in (0, half):
        times = []
        for number in range(half):
            if tick:
                tick(first_of_half + number, 2 * half)
            times.append(
                (_measure_warm_seconds(reference, runs), _measure_warm_seconds(other, runs))
            )
        first, second = (min(each) for each in zip(*times, strict=True))
        ratios.append(second / max(first, _NOTHING))
    return min(ratios)


def _measure_warm_seconds(run: Callable[[], object], runs: int) -> float:
    """Measure the CPU time of one run among several, with the caches as one run leaves them."""
    first = measure_thread_seconds(run)
    return measure_thread_seconds(run, runs) if runs > 1 or first < _WARMED else first


def measure_thread_seconds(run: Callable[[], object], runs: int = 1) -> float:
    """Measure the CPU time of this thread for one run, as the mean of ``runs`` in a row."""
    start = time.thread_time()
    for _ in range(runs):
        run()
    return (time.thread_time() - start) / runs
