"""How much longer one model takes than another, on a machine that may be busy with other work."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

_SECONDS = 0.4  # of running
_LEAST_ROUNDS, _MOST_ROUNDS = 6, 60
_NOTHING = 1e-30


def time_ratio(reference: Callable[[], object], other: Callable[[], object]) -> float:
    """How many times as long the other takes, at least: the smaller of two halves' medians.

    Both run in turn, and the time is that of this thread, so that other work on the machine counts
    for little.
    """
    reference()
    other()
    spent = max(_seconds(reference) + _seconds(other), _NOTHING)
    rounds = int(min(max(_SECONDS / spent, _LEAST_ROUNDS), _MOST_ROUNDS))
    ratios: list[float] = []
    for _ in range(2):
        times = [(_seconds(reference), _seconds(other)) for _ in range(math.ceil(rounds / 2))]
        first, second = (statistics.median(each) for each in zip(*times, strict=True))
        ratios.append(second / max(first, _NOTHING))
    return min(ratios)


def _seconds(run: Callable[[], object]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start
