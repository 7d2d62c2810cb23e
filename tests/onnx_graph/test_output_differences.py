"""Errors of outputs: finite values only, relative to the reference."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.onnx_graph.output_differences import (
    SquaredErrors,
    compute_correlation,
    compute_squared_error,
)
from edgekit_agent.measure.relative_error import compute_relative_rms, compute_rms


def test_entries_without_a_finite_reference_do_not_count():
    old = np.float32([3.0, np.nan, -np.inf, 4.0])
    new = np.float32([3.0, 7.0, 0.0, 6.0])

    assert compute_squared_error(old, new) == (4.0, 25.0)


@pytest.mark.parametrize(
    ("old", "new"), [(np.int32([1, 2]), np.int32([3, 4])), (np.ones(2), np.ones(3))]
)
def test_integers_and_values_of_another_shape_have_no_squared_error(old, new):
    assert compute_squared_error(old, new) == (0.0, 0.0)


def test_batches_add_up_by_output():
    sums = SquaredErrors[str]()
    for error in (1.0, 3.0):
        sums.add("y", error, 8.0)
    sums.add("zero", 0.0, 0.0)

    assert sums.compute_relative("y") == 0.25
    assert sums.compute_relative_rms("y") == 0.5
    assert sums.compute_relative_rms("zero") == 0.0


def test_the_rms_of_numbers_whose_squares_overflow_is_finite():
    assert compute_rms(np.array([3e200, -4e200])) == pytest.approx(np.sqrt(12.5) * 1e200)
    assert compute_rms(np.zeros(0)) == 0.0


def test_the_relative_error_of_zeros_is_absolute_or_relative_to_the_least_size():
    expected, found = np.zeros(4), np.full(4, 0.5)

    assert compute_relative_rms(expected, found) == 0.5
    assert compute_relative_rms(expected, found, least=2.0) == 0.25
    assert compute_relative_rms(found, 3 * found) == pytest.approx(2.0)


def test_outputs_correlate_by_what_varies_between_samples():
    rng = np.random.default_rng(0)
    old = 1.0 + rng.normal(size=(20, 3))

    assert compute_correlation(old, 5.0 + 2.0 * old) == pytest.approx(1.0)
    assert compute_correlation(old, -old) == pytest.approx(-1.0)
    assert compute_correlation(old, np.ones_like(old)) == 0.0
    assert compute_correlation(1000 + old, old) is None  # the reference hardly varies
    assert compute_correlation(old[:2], old[:2]) is None  # too few samples
