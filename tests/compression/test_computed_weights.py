"""Weights that the graph computes from constants are compressed by every pass."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.tiny import apply, model, normal, run, samples

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
    "a copy for each sample": (
        "s = Shape(x) b = Slice(s, zero, one) k = Concat<axis = 0>(b, sizes) t = Expand(w, k)"
        " h = MatMul(x, t)", {"w": (64, 96)},
    ),
    "bounded weights": ("t = Tanh(w) h = MatMul(x, t)", {"w": (64, 96)}),
}  # fmt: skip


NUMBERS = {"zero": np.array([0]), "one": np.array([1]), "sizes": np.array([64, 96])}


@pytest.mark.parametrize(
    "step", ["prune-weights", "low-rank", "prune-channels", "quantize-weights", "quantize-static"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_compresses_weights_that_the_graph_computes(tmp_path, kind, step):
    body, shapes = KINDS[kind]
    text = f"g (float[N,6,64] x) => (float[N,6,32] y) {{ {body} r = Relu(h) y = MatMul(r, v) }}"
    weights = {name: normal(*shape, scale=0.1) for name, shape in shapes.items()}
    numbers = NUMBERS if "Expand" in body else {}
    source = model(tmp_path, text, weights=weights | {"v": normal(96, 32, scale=0.1)} | numbers)
    x = normal(64, 6, 64)
    most = {"quantize-static": 0.4, "quantize-weights": 0.4, "prune-weights": 1.02}.get(step, 0.9)
    settings = {"remove": 0.3} if step == "prune-channels" else {}

    made = apply(step, source, tmp_path, samples(tmp_path, x=x), **settings)

    assert made.bytes < most * source.bytes
    exact, found = run(source, x=x)[0], run(made, x=x)[0]
    assert np.square(exact - found).mean() < 0.5 * np.square(exact).mean()


@pytest.mark.parametrize("step", ["prune-weights", "quantize-static", "quantize-dynamic"])
def test_copies_that_make_the_output_larger_stay(tmp_path, step):
    text = (
        "g (float[1,6,64] x) => (float[3,6,32] y)"
        " { h = MatMul(x, u) t = Expand(w, s) y = MatMul(h, t) }"
    )
    weights = {"u": normal(64, 64), "w": normal(1, 64, 32), "s": np.array([3, 64, 32])}
    source, x = model(tmp_path, text, weights=weights), normal(1, 6, 64)

    made = apply(step, source, tmp_path, samples(tmp_path, x=np.tile(x, (16, 1, 1))))

    assert run(made, x=x)[0].shape == (3, 6, 32)
