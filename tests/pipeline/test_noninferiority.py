"""The interval of the accuracy drop, and changed predictions."""

from __future__ import annotations

import pytest

from edgekit.errors import EdgekitError
from edgekit.pipeline.noninferiority import compare
from edgekit_agent.measure.accuracy import hits_to_hex
from edgekit_agent.results import Tally


def tally(hits, predictions=(), metric="top1"):
    return Tally(metric, len(hits), sum(hits), hits_to_hex(hits), tuple(predictions))


def test_changed_predictions_are_counted_sample_by_sample():
    before = tally([True] * 90 + [False] * 10, [1] * 100)
    after = tally([False] * 3 + [True] * 88 + [False] * 9, [2] * 3 + [1] * 92 + [5] * 5)

    found = compare(before, after, margin_points=10)

    assert (found.n, found.lost, found.won, found.flips) == (100, 3, 1, 8)
    assert found.drop_points == 2.0
    assert found.interval_points[0] < 2 < found.worst_points < found.interval_points[1]
    assert found.proven


def test_equal_accuracy_on_few_samples_is_not_proof_and_says_how_many_would_be():
    same = tally([True] * 45 + [False] * 5)

    found = compare(same, same, margin_points=1.0)

    assert found.drop_points == 0
    assert not found.proven
    assert found.needed_samples > 300
    enough = tally([True] * found.needed_samples)
    assert compare(enough, enough, margin_points=1.0).proven


def test_with_a_margin_of_nothing_no_number_of_samples_would_do():
    same = tally([True] * 50)

    assert compare(same, same, margin_points=0).needed_samples is None


@pytest.mark.parametrize(
    "other", [tally([True] * 9), tally([True] * 10, metric="top5"), tally([])], ids=str
)
def test_tallies_of_other_samples_or_metrics_are_not_compared(other):
    with pytest.raises(EdgekitError, match="same samples and metric"):
        compare(tally([True] * 10), other, margin_points=1)
