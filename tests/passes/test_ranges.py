"""Ranges from a stream: min and max see everything, outliers are clipped, nothing is biased."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.passes.ranges import find_ranges
from edgekit.recipe import QuantizeStatic


def ranges(batches, **settings):
    return find_ranges(iter([batches, batches]), QuantizeStatic(**settings))


def with_outlier(outlier, size=100_000):
    values = np.random.default_rng(0).normal(0, 1, size).astype(np.float32)
    values[17] = outlier
    return [{"v": part} for part in np.split(values, 10)]


def test_minmax_is_the_smallest_and_largest_of_all_batches():
    low, high = ranges(with_outlier(1000), ranges="minmax")["v"]

    assert high == 1000
    assert -6 < low < -3


def test_a_percentile_leaves_the_share_outside_that_it_says():
    values = np.random.default_rng(0).uniform(-1, 1, 30_000).astype(np.float32)
    low, high = ranges([{"v": values}], ranges="percentile", percentile=90)["v"]

    outside = np.mean((values < low) | (values > high))
    assert outside == pytest.approx(0.10, abs=0.005)
    assert low == pytest.approx(-high, abs=0.02)


def test_the_range_of_least_squared_error_gives_up_a_lone_outlier():
    batches = with_outlier(60, size=1_000_000)
    values = np.concatenate([b["v"] for b in batches])

    def squared_error(low, high):
        scale = (high - low) / 255
        return np.square(np.clip(np.rint((values - low) / scale), 0, 255) * scale + low - values)

    found = ranges(batches, ranges="mse")["v"]

    assert found[1] < 50
    assert squared_error(*found).sum() < squared_error(values.min(), values.max()).sum()


@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse"])
def test_a_constant_value_and_one_without_entries_do_no_harm(kind):
    batches = [{"flat": np.full(9, 3.0, np.float32), "empty": np.zeros((0, 4), np.float32)}] * 2
    found = ranges(batches, ranges=kind)

    assert found["flat"] == (3.0, 3.0)
    assert "empty" not in found


@pytest.mark.parametrize("shape", [(1, 512, 768), (1, 96, 96, 64), (1, 64, 112, 112)])
def test_a_histogram_of_a_large_value_meets_every_channel(shape):
    # One channel of a large value is ten times as wide; all of them must be looked at.
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    values[..., 5] *= 10

    high = ranges([{"v": values}], ranges="percentile", percentile=99.98)["v"][1]

    exact = np.percentile(values, 99.99)
    assert high == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(wrong):
    with pytest.raises(FloatingPointError, match="bad_value"):
        ranges([{"bad_value": np.array([1, wrong], np.float32)}])
