"""Outputs are compared one by one, each relative to its own scale."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.checks.agreement import compare_models
from edgekit.compression.checks.contracts import check_agreement
from edgekit.compression.pass_specs import Promise
from tests.builders.tiny import model, normal, samples

TWO = """
g (float[N,8] x) => (float[N,8] state, float[N,8] mask) {
  state = MatMul(x, large)
  mask = MatMul(x, small)
}
"""


def two_outputs(folder, *, off=0.0, scale=1e-3):
    """Build a network with a large output and a small one with an error."""
    small = scale * normal(8, 8, seed=1)
    weights = {"large": 100 * normal(8, 8), "small": (small * (1 + off)).astype(np.float32)}
    return model(folder, TWO, weights=weights)


def test_a_small_output_counts_relative_to_itself_and_comes_first(tmp_path):
    before, after = two_outputs(tmp_path), two_outputs(tmp_path, off=0.026)
    found = compare_models(before, after, samples(tmp_path, x=normal(24, 8)), seed=0)

    assert list(found.relative_errors) == ["mask", "state"]
    assert found.worst == ("mask", pytest.approx(0.026, rel=1e-3))
    assert found.relative_errors["state"] == 0


def test_a_promise_is_broken_by_the_worst_output_and_names_it(tmp_path):
    before, after = two_outputs(tmp_path), two_outputs(tmp_path, off=0.5)
    found = compare_models(before, after, samples(tmp_path, x=normal(24, 8)), seed=0)

    (said,) = check_agreement(Promise(max_relative_error=0.1), found)
    assert "output mask differs from the original's by 0.5 (relative RMS)" in said


def test_an_output_that_is_zero_has_no_error_unless_it_changes(tmp_path):
    data = samples(tmp_path, x=normal(24, 8))
    zero, other = two_outputs(tmp_path, scale=0.0), two_outputs(tmp_path, scale=1e-5)

    assert compare_models(zero, zero, data, seed=0).relative_errors["mask"] == 0
    assert compare_models(zero, other, data, seed=0).relative_errors["mask"] == 1
