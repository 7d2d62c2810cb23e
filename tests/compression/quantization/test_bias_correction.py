"""Bias correction compensates the mean error of quantization."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.tiny import apply, model, run, samples, uniform


def positive(*shape, seed=0):
    return np.abs(uniform(*shape, seed=seed)) + np.float32(0.5)


CASES = {
    "conv": (
        "g (float[N,8,6,6] x) => (float[N,16,6,6] y) { c = Conv(x, w, b) y = Neg(c) }",
        {"w": uniform(16, 8, 1, 1), "b": uniform(16)},
        (72, 8, 6, 6),
        (0, 2, 3),
    ),
    "conv without bias": (
        "g (float[N,8,6,6] x) => (float[N,16,6,6] y) { c = Conv(x, w) y = Neg(c) }",
        {"w": uniform(16, 8, 1, 1)},
        (72, 8, 6, 6),
        (0, 2, 3),
    ),
    "gemm": (
        "g (float[N,32] x) => (float[N,16] y) { c = Gemm(x, w, b) y = Neg(c) }",
        {"w": uniform(32, 16), "b": uniform(16)},
        (72, 32),
        (0,),
    ),
    "matmul and add": (
        "g (float[N,5,32] x) => (float[N,5,16] y) { m = MatMul(x, w) c = Add(b, m) y = Neg(c) }",
        {"w": uniform(32, 16), "b": uniform(16)},
        (72, 5, 32),
        (0, 1),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_mean_of_each_channel_moves_less(tmp_path, kind):
    text, weights, shape, axes = CASES[kind]
    # A weight that is large in one channel rounds the others of its row coarsely.
    weights = weights | {"w": weights["w"].copy()}
    if kind.startswith("conv"):
        weights["w"][:, 0] *= 40
    else:
        weights["w"][0] *= 40
    source = model(tmp_path, text, weights=weights)
    data = samples(tmp_path, x=positive(*shape))
    x = positive(*shape, seed=1)
    before = run(source, x=x)[0]

    def shift(corrected):
        made = apply(
            "quantize-static", source, tmp_path, data, bias_correction=corrected, equalize=False
        )
        return np.abs((run(made, x=x)[0] - before).mean(axis=axes)).mean()

    assert shift(corrected=True) < 0.5 * shift(corrected=False)
