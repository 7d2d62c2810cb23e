"""Channels that differ widely are evened out between two layers, where that helps the second."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import apply, model, normal, run, samples, sqnr_db, uniform

WIDE = np.logspace(-1.2, 1.2, 16).astype(np.float32)

GRAPHS = {
    "conv, relu, depthwise conv": (
        "g (float[N,4,8,8] x) => (float[N,16,6,6] y) "
        "{ c = Conv(x, w, b) r = Relu(c) d = Conv<group = 16>(r, v) y = Neg(d) }",
        normal(16, 1, 3, 3, seed=1) / WIDE[:, None, None, None],
    ),
    "conv, relu, pool, conv": (
        "g (float[N,4,8,8] x) => (float[N,8,4,4] y) { c = Conv(x, w, b) r = Relu(c) "
        "p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r) d = Conv(p, v) y = Neg(d) }",
        normal(8, 16, 1, 1, seed=1) / WIDE[None, :, None, None],
    ),
}


def source_of(folder, kind):
    text, second = GRAPHS[kind]
    first = normal(16, 4, 1, 1) * WIDE[:, None, None, None]
    return model(folder, text, weights={"w": first, "b": normal(16, seed=2) * WIDE, "v": second})


@pytest.mark.parametrize("kind", GRAPHS)
def test_unequal_channels_keep_their_precision(tmp_path, kind):
    source = source_of(tmp_path, kind)
    data = samples(tmp_path, x=uniform(72, 4, 8, 8))
    x = uniform(32, 4, 8, 8, seed=3)
    before = run(source, x=x)[0]

    def channels_db(equal):
        made = apply("quantize", source, tmp_path, data, equalise=equal)
        after = run(made, x=x)[0]
        return np.mean([sqnr_db(before[:, c], after[:, c]) for c in range(before.shape[1])])

    assert channels_db(equal=True) > channels_db(equal=False) + 3


def test_channels_are_left_alone_where_the_activation_function_minds(tmp_path):
    text, second = GRAPHS["conv, relu, depthwise conv"]
    first = normal(16, 4, 1, 1) * WIDE[:, None, None, None]
    weights = {"w": first, "b": normal(16), "v": second, "low": np.float32(0), "six": np.float32(6)}
    clipped = text.replace("Relu(c)", "Clip(c, low, six)")
    source = model(tmp_path, clipped, weights=weights)
    data = samples(tmp_path, x=uniform(72, 4, 8, 8))
    x = uniform(32, 4, 8, 8, seed=3)

    made = [apply("quantize", source, tmp_path, data, equalise=e) for e in (True, False)]

    np.testing.assert_array_equal(run(made[0], x=x)[0], run(made[1], x=x)[0])
