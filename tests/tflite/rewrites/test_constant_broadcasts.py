"""Constants that an operator broadcasts are stored in a .tflite file without repeats."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.tiny import apply, model, normal, run, samples
from tests.compression.test_to_tflite import answers

ROWS, WIDE = 128, 64
X = {"x": normal(1, ROWS, WIDE)}
SHAPE = np.array([1, ROWS, WIDE])
KINDS = {
    "an Expand": ("e = Expand(r, s) y = Add(x, e)", {"r": normal(WIDE), "s": SHAPE}),
    "a Tile of columns": (
        "e = Tile(r, s) y = Mul(x, e)", {"r": normal(1, ROWS, 1), "s": np.array([1, 1, WIDE])}
    ),
    "the shape of the input": ("s = Shape(x) e = Expand(r, s) y = Sub(e, x)", {"r": normal(WIDE)}),
    "a filled constant": (
        "z = ConstantOfShape<value = float[1] {2.0}>(s) e = Mul(z, r) y = Div(x, e)",
        {"r": normal(1, 1, WIDE) + 5, "s": SHAPE},
    ),
    "a chain": (
        "e = Expand(r, s) n = Neg(e) f = Reshape(n, t) y = Max(x, f)",
        {"r": normal(WIDE), "s": np.array([1, 4, 32, WIDE]), "t": SHAPE},
    ),
    "a choice": (
        "e = Expand(r, s) c = Less(x, e) y = Where(c, x, e)", {"r": normal(WIDE), "s": SHAPE}
    ),
    "stored expanded": ("y = Add(x, r)", {"r": np.tile(normal(1, 1, WIDE), (1, ROWS, 1))}),
    "two readers": (
        "e = Expand(r, s) a = Add(x, e) y = Mul(a, e)", {"r": normal(WIDE), "s": SHAPE}
    ),
    "a bias": (
        "h = MatMul(x, w) e = Expand(r, s) y = Add(h, e)",
        {"r": normal(WIDE), "s": SHAPE, "w": normal(WIDE, WIDE)},
    ),
}  # fmt: skip


def test_a_matrix_that_is_repeated_for_each_of_a_batch_is_stored_once(tmp_path):
    text = "g (float[6,5,64] x) => (float[6,5,32] y) { e = Expand(w, s) y = MatMul(x, e) }"
    weights = {"w": normal(1, 64, 32), "s": np.array([6, 64, 32])}
    source, x = model(tmp_path, text, weights=weights), normal(6, 5, 64)

    made = apply("to-tflite", source, tmp_path)

    assert made.bytes < 1.3 * source.bytes
    np.testing.assert_allclose(answers(made, x=x)["y"], run(source, x=x)[0], rtol=1e-4, atol=1e-4)


def source_of(folder, body, weights):
    return model(folder, f"g (float[1,{ROWS},{WIDE}] x) => (float[1,{ROWS},{WIDE}] y) {{ {body} }}",
                 weights=weights)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_constant_is_stored_once_and_computes_the_same(tmp_path, kind):
    source = source_of(tmp_path, *KINDS[kind])

    made = apply("to-tflite", source, tmp_path)

    assert made.bytes < (WIDE * WIDE * 4 if kind == "a bias" else 0) + 2048
    np.testing.assert_allclose(answers(made, **X)["y"], run(source, **X)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Add(x, r)", {"r": normal(1, ROWS, WIDE)}),
        ("e = Expand(r, s) c = Concat<axis = 1>(x, e) y = Slice(c, a, b, d)",
         {"r": normal(WIDE), "s": SHAPE, "a": np.array([1]), "b": np.array([ROWS + 1]),
          "d": np.array([1])}),
        ("h = ReduceMean<axes = [1]>(x) e = Expand(r, s) y = Add(h, e)",
         {"r": normal(1, 1, WIDE), "s": SHAPE}),
        ("e = Expand(r, s) y = Add(x, e)",
         {"r": np.where(np.arange(WIDE) % 2, 0.0, -0.0).astype(np.float32), "s": SHAPE}),
    ],
    ids=["no repeats", "a reader that does not broadcast", "the shape of the output", "zeros"],
)  # fmt: skip
def test_other_constants_compute_the_same(tmp_path, body, weights):
    source = source_of(tmp_path, body, weights)

    made = apply("to-tflite", source, tmp_path)

    np.testing.assert_allclose(answers(made, **X)["y"], run(source, **X)[0], rtol=1e-5, atol=1e-5)


def test_a_repeated_constant_of_an_int8_model_is_stored_once(tmp_path):
    body = "h = MatMul(x, w) e = Expand(r, s) a = Add(h, e) y = MatMul(a, v)"
    weights = {
        "r": normal(1, ROWS, 1),
        "s": SHAPE,
        "w": normal(WIDE, WIDE),
        "v": normal(WIDE, WIDE),
    }
    text = f"g (float[N,{ROWS},{WIDE}] x) => (float[N,{ROWS},{WIDE}] y) {{ {body} }}"
    source = model(tmp_path, text, weights=weights)
    data = {"x": normal(8, ROWS, WIDE)}
    int8 = apply("quantize-static", source, tmp_path, samples(tmp_path, **data))

    made = apply("to-tflite", int8, tmp_path)

    assert made.bytes < 2 * WIDE * WIDE + 6000
    found, exact = answers(made, x=data["x"][:1])["y"], run(source, x=data["x"][:1])[0]
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()
