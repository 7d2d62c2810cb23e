"""The interval of the accuracy drop (Tango 1998), its coverage, and changed predictions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import EdgekitError
from edgekit.pipeline.noninferiority import compare, tango_interval
from edgekit_agent.measure.accuracy import hits_to_hex
from edgekit_agent.results import Tally

Z = 1.959964


def tally(hits, predictions=(), metric="top1"):
    return Tally(metric, len(hits), sum(hits), hits_to_hex(hits), tuple(predictions))


def by_quartic(lost, won, n, z):
    """The closed form of Yang, Sun and Hardin 2013: roots of a quartic."""
    g, b, c = z * z, lost, won
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * (b - c) * (n / g + 1) * (4 * n / g + 1),
        2 * n * (b - c) ** 2 * (3 * n / g + 2) / g - n**2 * ((b + c) / g + 1),
        n * (b - c) * (2 * (b + c) / g + 1) - (b - c) ** 3 * (4 * n / g + 1) / g,
        (b - c) ** 2 * ((b - c) ** 2 / g - (b + c)) / g,
    ]
    real = [r.real for r in np.roots(quartic) if abs(r.imag) < 1e-6]
    return min(real), max(real)


def test_the_published_example_comes_out():
    # Airway hyper-responsiveness before and after transplantation, 21 children, pairs 1 and 7:
    # Fagerland, Lydersen, Laake 2014, "Recommended tests and confidence intervals for paired
    # binomial proportions", Tango asymptotic score interval.
    low, high = tango_interval(1, 7, 21, z=Z)

    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


@given(st.integers(1, 400), st.data())
@settings(max_examples=150)
def test_the_interval_is_that_of_the_closed_form(n, data):
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    if lost == won or abs(lost - won) == n:
        return  # double roots, which the quartic finds only to half the digits
    assert tango_interval(lost, won, n, z=Z) == pytest.approx(by_quartic(lost, won, n, Z), abs=1e-5)


@given(st.integers(1, 500), st.data())
def test_swapping_the_models_mirrors_the_interval_around_zero(n, data):
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    low, high = tango_interval(lost, won, n, z=Z)

    assert tango_interval(won, lost, n, z=Z) == pytest.approx((-high, -low), abs=1e-9)
    assert -1 <= low <= (lost - won) / n <= high <= 1


def test_no_difference_at_all_still_leaves_doubt_that_shrinks_with_the_samples():
    # With no discordant pair the upper bound is z^2 / (n + z^2).
    for n in (10, 100, 1000):
        assert tango_interval(0, 0, n, z=Z)[1] == pytest.approx(Z * Z / (n + Z * Z), abs=1e-6)


@pytest.mark.parametrize(("p_lost", "p_won"), [(0.05, 0.05), (0.08, 0.02), (0.02, 0.01)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(p_lost, p_won):
    n, truth, covered = 200, p_lost - p_won, 0.0
    for lost in range(40):
        for won in range(40):
            rest = n - lost - won
            ways = math.comb(n, lost) * math.comb(n - lost, won)
            chance = ways * p_lost**lost * p_won**won * (1 - p_lost - p_won) ** rest
            if chance > 1e-7:
                low, high = tango_interval(lost, won, n, z=Z)
                covered += chance * (low <= truth <= high)

    assert covered == pytest.approx(0.95, abs=0.02)


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
