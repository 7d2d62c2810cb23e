"""Trials of the gate on simulated models, and the shares of them that it passes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.gate_simulation.pairs import Process
from edgekit.metrics.comparison import Comparison, compare
from edgekit.metrics.registry import get_metric
from edgekit_agent.scoring import MetricOptions

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Number of trials that the gate passes.

    Attributes:
        trials: Number of trials.
        passed: Number of those that passed.
        samples: Median number of samples of a trial.
        cpu_s: Processor time of all trials.
    """

    trials: int
    passed: int
    samples: int
    cpu_s: float

    @property
    def share(self) -> float:
        """Return the share of trials that passed."""
        return self.passed / self.trials


def count_false_passes(process: Process, trials: int, seed: int = 0) -> Passes:
    """Count the trials that pass though the true loss is the margin."""
    start = time.process_time()
    margin = get_metric(process.metric).margin.value
    passed = sum(
        _judge(process, process.samples, margin, seed, number).proven for number in range(trials)
    )
    spent = time.process_time() - start
    return Passes(trials=trials, passed=passed, samples=process.samples, cpu_s=spent)


def count_true_passes(process: Process, trials: int, seed: int = 1) -> Passes:
    """Count the trials without a true loss that pass with as many samples as a pilot asks for.

    A pilot that passes, or whose own loss exceeds the margin, asks for no number: it is drawn
    again.
    """
    start = time.process_time()
    passed, sizes = 0, []
    for number in range(trials):
        n = _ask_pilot(process, seed, number)
        sizes.append(n)
        passed += _judge(process, min(n, process.most), 0.0, seed + 1, number).proven
    spent = time.process_time() - start
    return Passes(trials=trials, passed=passed, samples=int(np.median(sizes)), cpu_s=spent)


def _ask_pilot(process: Process, seed: int, number: int) -> int:
    """Return the number of samples that a pilot without a true loss asks for."""
    for attempt in range(100):
        found = _judge(process, process.pilot, 0.0, seed, number, attempt)
        if found.needed_samples is not None:
            return found.needed_samples
    raise RuntimeError(f"no pilot of {process.metric} asks for a number of samples")


def _judge(
    process: Process, n: int, loss: float, seed: int, number: int, attempt: int = 0
) -> Comparison:
    rng = np.random.default_rng((seed, number, attempt))
    before, after = process.draw_tables(n, loss, rng)
    return compare(
        get_metric(process.metric),
        before,
        after,
        options=MetricOptions(),
        seed=number,
        resamples=RESAMPLES,
    )
