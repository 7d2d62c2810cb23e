"""Least squares with fewer samples than inputs stays near the original weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.reconstruction.least_squares import fit_least_squares
from edgekit.compression.reconstruction.moments import Moments

READ, LEFT, OUT = 512, 384, 64


def study(samples, *, noise, seed=0):
    """Share of the output variance left on new samples, after and before a refit."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(64, READ)) / 8
    weight = rng.normal(size=(OUT, READ)) / READ**0.5

    def draw(count):
        x = np.maximum(rng.normal(size=(count, 64)) @ basis + noise * rng.normal(size=(1, READ)), 0)
        x += noise * np.abs(rng.normal(size=x.shape))
        return x[None, :, :LEFT], (x @ weight.T)[None]

    learning, judging = (Moments.create_empty(1, LEFT, OUT) for _ in range(2))
    learning.add(*draw(samples * 3 // 4))
    judging.add(*draw(samples // 4))
    left = weight[None, :, :LEFT]
    fit = fit_least_squares(left, learning, judging, biased=True)
    x, y = draw(2000)
    centered = y - y.mean(axis=1, keepdims=True)

    def error(made):
        off = made - y
        off = off - off.mean(axis=1, keepdims=True)
        return float(np.square(off).sum() / np.square(centered).sum())

    return error(x @ fit.weight.transpose(0, 2, 1)), error(x @ left.transpose(0, 2, 1))


@pytest.mark.parametrize("samples", [24, 64, 512])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_a_refit_is_no_worse_on_new_samples_than_no_refit(samples, noise):
    refitted, before = study(samples, noise=noise)
    assert refitted <= 1.02 * before


def test_noisy_inputs_are_refitted_with_a_strong_ridge():
    refitted, before = study(512, noise=0.6)
    assert refitted < 0.8 * before
