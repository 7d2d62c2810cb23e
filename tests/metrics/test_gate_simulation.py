"""The gate passes few models whose true loss is the margin, and most without a loss."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gate_simulation.__main__ import compute_limit
from benchmarks.gate_simulation.pairs import PROCESSES
from benchmarks.gate_simulation.trials import count_false_passes, count_true_passes
from edgekit.metrics.registry import get_metric
from edgekit_agent.scoring import MetricOptions

QUICK = [process for process in PROCESSES if process.metric != "map"]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.metric)
def test_the_true_loss_of_a_process_is_the_one_that_was_asked_for(process):
    metric = get_metric(process.metric)
    n = 8_000 if process.metric == "map" else 60_000
    values = [
        metric.compute_value(table, MetricOptions())
        for table in process.draw_tables(n, 1.0, np.random.default_rng(1))
    ]

    loss = 100 * (values[0] - values[1])
    if metric.margin.relative:
        loss /= -values[0]
    assert loss == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("process", QUICK, ids=lambda process: process.metric)
def test_a_loss_as_large_as_the_margin_passes_in_about_five_percent(process):
    passes = count_false_passes(process, 200)

    assert passes.passed <= compute_limit(200)


@pytest.mark.parametrize("process", QUICK, ids=lambda process: process.metric)
def test_most_models_without_a_loss_pass_with_the_samples_that_a_pilot_asks_for(process):
    # At a power of 80 %, .4 % of such runs have fewer than 11 passes.
    assert count_true_passes(process, 20).passed >= 11


def test_the_limits_are_those_of_a_test_at_five_percent():
    assert (compute_limit(2000), compute_limit(300)) == (125, 24)
