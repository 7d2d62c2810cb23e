"""Percentiles of raw latencies, with intervals that account for correlated runs."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgekit.bundle.latency_stats import MIN_RUNS_P99, compute_effective_size, summarize
from edgekit_agent.worker_results import Latency


def record(values, doubts=()):
    return Latency(tuple(float(v) for v in values), 1, 3, 1.0, doubts)


def draw_correlated(n, rng, memory):
    values = np.empty(n)
    values[0] = rng.normal()
    for i in range(1, n):
        values[i] = memory * values[i - 1] + np.sqrt(1 - memory**2) * rng.normal()
    return values


def test_the_percentiles_are_those_of_all_values_of_all_processes():
    found = summarize([record([1, 2, 3]), record([4, 5])])

    assert (found.p50_ms, found.runs, found.processes) == (3.0, 5, 2)
    assert found.p95_ms == pytest.approx(np.percentile([1, 2, 3, 4, 5], 95))


def test_a_p99_is_reported_only_with_enough_runs():
    values = np.random.default_rng(0).lognormal(0, 0.1, MIN_RUNS_P99)

    assert summarize([record(values[:-1])]).p99_ms is None
    assert summarize([record(values)]).p99_ms == pytest.approx(np.percentile(values, 99))


def test_independent_runs_count_fully_and_correlated_ones_for_less():
    rng = np.random.default_rng(0)

    assert compute_effective_size(rng.normal(size=2000)) > 1500
    # An AR(1) series is worth n (1 - r) / (1 + r) runs.
    assert compute_effective_size(draw_correlated(2000, rng, 0.9)) == pytest.approx(
        2000 * 0.1 / 1.9, rel=0.5
    )


def test_the_interval_of_the_median_covers_it_for_independent_and_correlated_runs():
    rng = np.random.default_rng(1)
    for memory, least in ((0.0, 0.88), (0.8, 0.75)):
        hits = 0
        for _ in range(60):
            low, high = summarize([record(10 + draw_correlated(300, rng, memory))]).p50_interval_ms
            hits += low <= 10 <= high
        assert hits / 60 >= least


def test_processes_that_disagree_widen_the_interval():
    rng = np.random.default_rng(2)
    agree = summarize([record(10 + rng.normal(0, 0.1, 100)) for _ in range(5)])
    differ = summarize([record(10 + i + rng.normal(0, 0.1, 100)) for i in range(5)])

    width = [s.p50_interval_ms[1] - s.p50_interval_ms[0] for s in (agree, differ)]
    assert width[1] > 5 * width[0]


def test_a_single_run_is_summarized():
    found = summarize([record([2.5])])

    assert found.p50_interval_ms == (2.5, 2.5)
    assert found.effective_runs == 1


def test_doubts_are_reported_once():
    found = summarize([record([1], ("loaded",)), record([2], ("loaded", "throttled"))])

    assert found.doubts == ("loaded", "throttled")


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="no latencies"):
        summarize([record([])])


def test_long_drifting_series_are_summarized_in_about_a_second():
    rng = np.random.default_rng(3)
    drifting = [record(np.linspace(1, 2, 2000) + rng.normal(0, 0.01, 2000)) for _ in range(5)]

    def cost():
        started = time.process_time()
        summarize(drifting)
        return time.process_time() - started

    assert min(cost() for _ in range(3)) < 3
