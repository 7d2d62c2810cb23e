"""A candidate that always gives the same answer passes no gate, however wide the margin."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.dataset import Dataset
from edgekit.metrics.metric import Margin
from edgekit.pipeline.accuracy.comparison import compare_tallies
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit_agent.metrics.rows import encode_rows
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_results import Tally
from tests.builders.tiny import samples

N = 600
LABELS = np.arange(N) % 50 == 0  # 2 % of class 1


@pytest.fixture
def compare(tmp_path):
    """Compare predictions of a candidate with labels that the original knows but for one."""
    data = samples(tmp_path, x=np.zeros((N, 2), np.float32), label=LABELS.astype(np.int64))
    evaluation = Dataset(source="data", samples=data, count=N, digest="d")

    def score(predicted):
        rows = np.stack([predicted == LABELS, predicted], axis=1).astype(np.float64)
        return Tally("top1", N, statistics=(encode_rows("top1", list(rows)),))

    def run(predicted, margin):
        original = LABELS.copy()
        original[0] = False
        return compare_tallies(
            score(original),
            score(predicted),
            scoring=Scoring(metrics=(MetricJob("top1"),)),
            margins=(Margin(value=margin),),
            evaluation=evaluation,
        )

    return run


def test_a_constant_candidate_within_the_margin_is_meaningless(compare):
    constant = np.zeros(N, bool)
    found = compare(constant, margin=3.0)
    assert found.drop <= found.margin
    assert "top1 of the candidate is 98.00 % on 600 samples" in found.meaningless


def test_a_candidate_that_is_better_than_a_constant_passes_within_the_same_margin(compare):
    predicted = LABELS.copy()
    predicted[[50, 100]] = False
    assert compare(predicted, margin=3.0).meaningless == ""


def test_a_constant_candidate_outside_the_margin_is_only_a_loss(compare):
    found = compare(np.zeros(N, bool), margin=1.0)
    assert found.drop > found.margin
    assert found.meaningless == ""
