"""Weights that the graph computes from constants are layers like any other in every pass."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import apply, model, normal, run, samples

KINDS = {
    "weight normalization": (
        "n = ReduceL2<axes = [0], keepdims = 1>(w) u = Div(w, n) t = Mul(u, g)"
        " h = MatMul(x, t)", {"w": (64, 96), "g": (1, 96)}
    ),
    "a low-rank adapter": (
        "d = MatMul(p, q) e = Mul(d, c) t = Add(w, e) h = MatMul(x, t)",
        {"w": (64, 96), "p": (64, 4), "q": (4, 96), "c": ()},
    ),
    "standardized weights": (
        "m = ReduceMean<axes = [0], keepdims = 1>(w) o = Sub(w, m) k = Mul(o, o)"
        " l = ReduceMean<axes = [0], keepdims = 1>(k) s = Sqrt(l) t = Div(o, s) h = MatMul(x, t)",
        {"w": (64, 96)},
    ),
    "bounded weights": ("t = Tanh(w) h = MatMul(x, t)", {"w": (64, 96)}),
}  # fmt: skip


@pytest.mark.parametrize("step", ["prune", "low-rank", "prune-channels", "weights", "quantize"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_takes_weights_that_the_graph_computes(tmp_path, kind, step):
    body, shapes = KINDS[kind]
    text = f"g (float[N,6,64] x) => (float[N,6,32] y) {{ {body} r = Relu(h) y = MatMul(r, v) }}"
    weights = {name: normal(*shape, scale=0.1) for name, shape in shapes.items()}
    source = model(tmp_path, text, weights=weights | {"v": normal(96, 32, scale=0.1)})
    x = normal(64, 6, 64)
    most = {"quantize": 0.4, "weights": 0.4, "prune": 1.02}.get(step, 0.9)
    settings = {"remove": 0.3} if step == "prune-channels" else {}

    made = apply(step, source, tmp_path, samples(tmp_path, x=x), **settings)

    assert made.bytes < most * source.bytes
    exact, found = run(source, x=x)[0], run(made, x=x)[0]
    assert np.square(exact - found).mean() < 0.5 * np.square(exact).mean()
