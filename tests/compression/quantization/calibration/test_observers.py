"""Observers of activation ranges: exact extremes, clipped outliers, no bias."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.quantization.calibration.observers import (
    BatchExtremes,
    Extremes,
    Histograms,
    estimate,
)
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.value_probes import iter_entries
from tests.builders.tiny import proto, samples

ALL = ("minmax", "average", "percentile", "entropy", "mse")


def ranges(batches, *, percentile=99.99):
    """The range of one value by every estimator."""
    extremes = Extremes()
    for values in batches:
        low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
        extremes.update("v", BatchExtremes(low=float(low), high=float(high), size=values.size))
    histograms = Histograms(extremes=extremes)
    for values in batches:
        histograms.update("v", values)
    return estimate(ALL, "v", histograms, percentile)


def with_outlier(outlier, size=100_000):
    values = np.random.default_rng(0).normal(0, 1, size).astype(np.float32)
    values[17] = outlier
    return np.split(values, 10)


def squared_error(values, low, high):
    scale = (high - low) / 255
    return np.square(np.clip(np.rint((values - low) / scale), 0, 255) * scale + low - values).sum()


def test_minmax_is_the_smallest_and_largest_of_all_batches():
    low, high = ranges(with_outlier(1000))["minmax"]

    assert high == 1000
    assert -6 < low < -3


def test_the_moving_average_is_that_of_the_extremes_of_each_batch():
    batches = [np.array([-1.0, 3.0]), np.array([-3.0, 5.0]), np.array([-2.0, 4.0])]

    assert ranges(batches)["average"] == pytest.approx((-2, 4))


def test_the_moving_average_forgets_what_was_long_ago():
    batches = [np.array([0.0, 1.0])] * 100 + [np.array([0.0, 3.0])] * 400

    assert 2.9 < ranges(batches)["average"][1] < 3


def test_a_percentile_leaves_the_share_outside_that_it_says():
    values = np.random.default_rng(0).uniform(-1, 1, 30_000).astype(np.float32)
    low, high = ranges([values], percentile=90)["percentile"]

    outside = np.mean((values < low) | (values > high))
    assert outside == pytest.approx(0.10, abs=0.005)
    assert low == pytest.approx(-high, abs=0.02)


@pytest.mark.parametrize("kind", ["mse", "entropy"])
def test_a_single_outlier_is_clipped(kind):
    batches = with_outlier(60, size=1_000_000)
    values = np.concatenate(batches)

    found = ranges(batches)[kind]

    assert found[1] < 50
    assert squared_error(values, *found) < squared_error(values, values.min(), values.max())


def test_entropy_ignores_the_zeros_of_an_activation_function():
    rng = np.random.default_rng(0)
    values = np.maximum(rng.normal(0, 1, 200_000), 0).astype(np.float32)

    assert ranges([values])["entropy"][1] > 2.5


@pytest.mark.parametrize("kind", ALL)
def test_a_constant_value_and_one_without_entries_do_no_harm(kind):
    assert ranges([np.full(9, 3.0, np.float32)] * 2)[kind] == (3.0, 3.0)
    assert ranges([np.zeros((0, 4), np.float32)])[kind] == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 512, 768), (1, 96, 96, 64), (1, 64, 112, 112)])
def test_a_histogram_of_a_large_value_meets_every_channel(tmp_path, shape):
    # One channel of a large value is ten times as wide; all of them must be looked at.
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    values[..., 5] *= 10
    dims = ",".join(map(str, shape))
    made = proto(f"g (float[{dims}] v) => (float[{dims}] y) {{ y = Neg(v) }}")
    index = GraphIndex(made)

    sizes = {"v": values.size}
    (entries,) = [e["v"] for e in iter_entries(index, sizes, [samples(tmp_path, v=values)])]

    assert entries.size < values.size / 10
    high = ranges([entries], percentile=99.98)["percentile"][1]
    assert high == pytest.approx(np.percentile(values, 99.99), rel=0.2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(wrong):
    with pytest.raises(FloatingPointError, match="v"):
        ranges([np.array([1, wrong], np.float32)])
