"""The score interval of paired proportions (Tango 1998), and its coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.metrics.intervals.tango import tango_interval

Z = 1.959964


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
