"""The bootstrap of a loss: error rate of its limit on small samples, weights, speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from edgekit.metrics.intervals.bootstrap import resample_losses
from edgekit.metrics.intervals.student_t import compute_t_quantile


def make_mean(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 29, 1999])
@pytest.mark.parametrize("level", [0.025, 0.05, 0.95, 0.975])
def test_quantiles_of_student_t(degrees, level):
    assert compute_t_quantile(level, degrees) == pytest.approx(
        float(stats.t.ppf(level, degrees)), rel=0.01
    )


def test_bias_and_acceleration_are_those_of_an_independent_implementation():
    values = np.random.default_rng(0).exponential(1, 200)

    found = resample_losses(make_mean(values), 200, None, seed=1)
    other = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=10_000, method="BCa", rng=2
    )

    # Limits of ours without the expansion and the correction for small samples.
    z = found._correct_bias(1.644854)
    assert float(np.quantile(found.losses, stats.norm.cdf(z))) == pytest.approx(
        other.confidence_interval.high, abs=0.01
    )
    assert found.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(200))
    assert found.compute_bound(0.95) > other.confidence_interval.high


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("skew", [-1, 1])
def test_a_skewed_loss_crosses_the_one_sided_limit_in_about_five_percent(n, skew):
    rng = np.random.default_rng(n)
    crossed = 0
    for _ in range(400):
        found = resample_losses(
            make_mean(skew * rng.exponential(1, n)), n, None, seed=0, resamples=300
        )
        crossed += found.compute_bound(0.95) < skew

    assert crossed <= 32  # 8 %: of 400 trials at 5 %, .3 % have more


def test_resamples_draw_whole_groups():
    groups = np.array([9, 9, 4, 4, 4, 7])
    seen = []

    def compute(weights):
        seen.append(weights)
        return weights.sum(axis=1)

    resample_losses(compute, 6, groups, seed=0, resamples=200)

    weights = np.concatenate(seen)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    resampled = weights[:200]
    assert (resampled[:, [0, 2, 5]].sum(axis=1) == 3).all()


def test_undefined_resamples_are_left_out_and_counted():
    values = np.r_[np.nan, np.arange(49.0)]

    def compute(weights):
        return np.where(weights[:, 0] > 2, np.nan, weights[:, 1:] @ values[1:])

    found = resample_losses(compute, 50, None, seed=0)

    # Poisson(1) is above 2 with probability .080.
    assert found.undefined == pytest.approx(0.08, abs=0.015)
    assert found.losses.size == pytest.approx(9200, abs=150)
    assert not found.is_reliable


def test_ten_thousand_resamples_of_four_thousand_samples_take_seconds():
    start = time.process_time()
    resample_losses(make_mean(np.arange(4000.0)), 4000, None, seed=0)

    assert time.process_time() - start < 10
