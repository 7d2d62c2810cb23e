"""Margins: of the request, edgekit.toml, the device profile, or the metric, in this order."""

from __future__ import annotations

import pytest

from edgekit.config.profile import Budget
from edgekit.config.project import GateTable
from edgekit.pipeline.accuracy.metric_choice import choose_margins
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit_agent.scoring import MetricJob


def choose(*metrics, asked=None, gate=None, budget=None):
    scoring = Scoring(metrics=tuple(map(MetricJob, metrics)))
    found = choose_margins(scoring, asked, GateTable(**gate or {}), Budget(**budget or {}))
    return [(margin.value, margin.relative) for margin in found]


@pytest.mark.parametrize(
    ("metric", "asked", "gate", "budget", "expected"),
    [
        ("top1", None, {}, {}, (1.0, False)),
        ("top1", None, {}, {"accuracy_drop_points": 2.0}, (2.0, False)),
        ("miou", None, {}, {"accuracy_drop_points": 2.0}, (2.0, False)),
        ("top1", None, {"max_drop_points": 0.5}, {"accuracy_drop_points": 2.0}, (0.5, False)),
        ("top1", None, {"max_drop": 0.25, "max_drop_points": 0.5}, {}, (0.25, False)),
        ("top1", 3.0, {"max_drop": 0.25}, {}, (3.0, False)),
        ("mae", None, {}, {"accuracy_drop_points": 2.0}, (1.0, True)),
        ("mae", None, {"max_drop_points": 0.5}, {}, (1.0, True)),
        ("mae", None, {}, {"max_drop": {"mae": 4.0}}, (4.0, True)),
        ("perplexity", None, {}, {}, (2.0, True)),
        ("psnr", None, {}, {}, (0.1, False)),
        ("output-rms", None, {}, {"accuracy_drop_points": 1.0}, (10.0, False)),
    ],
)
def test_the_nearest_setting_decides(metric, asked, gate, budget, expected):
    assert choose(metric, asked=asked, gate=gate, budget=budget) == [expected]


def test_a_guard_has_its_own_margin():
    found = choose("miou", "dice", "mae", gate={"guards": {"dice": 3.0}}, asked=0.5)
    assert found == [(0.5, False), (3.0, False), (1.0, True)]
