"""Outputs that are stored constants are ignored by every pass and check."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.tiny import apply, model, normal, run, samples

WEIGHTS = {"w": normal(16, 32), "v": normal(32, 8, seed=1), "c": normal(4, seed=2)}
BODY = "h = MatMul(x, w) r = Relu(h) s = MatMul(r, v) "


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("quantize-static", {}),
        ("quantize-weights", {"bits": 4}),
        ("prune-weights", {}),
        ("prune-channels", {}),
        ("low-rank", {"keep": 0.5}),
    ],
)
@pytest.mark.parametrize("count", [4, 80])
@pytest.mark.parametrize(
    ("outputs", "last"),
    [
        ("float[4] c, float[N,8] s", ""),
        ("float[4] c", ""),
        ("float[4] c, int64[N,1] k", "k = ArgMax(s)"),
        ("int64[N,1] k", "k = ArgMax<axis=1>(s)"),
    ],
)
def test_a_stored_output_stays_beside_computed_ones(tmp_path, name, settings, count, outputs, last):
    text = f"g (float[N,16] x) => ({outputs}) {{{BODY}{last}}}"
    source = model(tmp_path, text.replace("ArgMax(", "ArgMax<axis=1>("), weights=WEIGHTS)
    calibration = samples(tmp_path, x=normal(count, 16, seed=3))

    made = apply(name, source, tmp_path, calibration, **settings)

    x = normal(3, 16, seed=9)
    if outputs.startswith("float[4] c"):
        assert np.array_equal(run(made, x=x)[0], WEIGHTS["c"])
    assert run(made, x=x)[-1].shape == run(source, x=x)[-1].shape
