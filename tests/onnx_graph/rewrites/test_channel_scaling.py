"""Per-channel scales and shifts are folded into the layer before them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.onnx_graph.rewrites.channel_scaling import fold_channel_scaling
from tests.builders.tiny import normal, ops, proto, run, uniform, write

NORM = {
    "s": uniform(24) + np.float32(1.5),
    "b": normal(24),
    "m": normal(24, seed=2),
    "v": uniform(24, seed=3) + np.float32(1.5),
}
FACTOR = {"f": uniform(24, seed=4) - np.float32(1.5), "a": normal(24, seed=5)}
NCHW = {name: value.reshape(24, 1, 1) for name, value in FACTOR.items()}
IMAGE = (2, 16, 8, 8)
CASES = {
    "a normalization behind a product and its bias": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) q = Add(p, k) "
        "n = BatchNormalization(q, s, b, m, v) y = Relu(n) }",
        NORM | {"w": normal(64, 24), "k": normal(24)},
        (4, 64),
        ["Gemm", "Relu"],
    ),
    "a normalization behind a Gemm": (
        "g (float[N,64] x) => (y) { p = Gemm<transB = 1>(x, w, k) "
        "y = BatchNormalization(p, s, b, m, v) }",
        NORM | {"w": normal(24, 64), "k": normal(24)},
        (4, 64),
        ["Gemm"],
    ),
    "a product of three axes": (
        "g (float[N,5,64] x) => (y) { p = MatMul(x, w) q = Mul(f, p) r = Add(q, a) y = Relu(r) }",
        FACTOR | {"w": normal(64, 24)},
        (2, 5, 64),
        ["MatMul", "Add", "Relu"],
    ),
    "a product of three axes, all sizes known": (
        "g (float[2,5,64] x) => (y) { p = MatMul(x, w) q = Mul(f, p) r = Add(q, a) y = Relu(r) }",
        FACTOR | {"w": normal(64, 24)},
        (2, 5, 64),
        ["Reshape", "Gemm", "Reshape", "Relu"],
    ),
    "a dense layer written with reshapes": (
        "g (float[N,5,64] x) => (float[N,5,24] y) { l = Reshape(x, flat) p = MatMul(l, w) "
        "t = Reshape(p, deep) q = Sub(t, a) r = Div(q, f) y = Relu(r) }",
        FACTOR | {"w": normal(64, 24), "flat": np.array([-1, 64]), "deep": np.array([-1, 5, 24])},
        (2, 5, 64),
        ["Reshape", "Gemm", "Reshape", "Relu"],
    ),
    "a convolution, channels moved to the end": (
        "g (float[N,16,8,8] x) => (y) { c = Conv(x, w) t = Transpose<perm = [0,2,3,1]>(c) "
        "q = Mul(t, f) y = Sub(a, q) }",
        FACTOR | {"w": normal(24, 16, 3, 3)},
        IMAGE,
        ["Conv", "Transpose"],
    ),
    "a transposed convolution": (
        "g (float[N,16,8,8] x) => (y) { c = ConvTranspose(x, w) "
        "n = BatchNormalization(c, s, b, m, v) y = Relu(n) }",
        NORM | {"w": normal(16, 24, 2, 2)},
        IMAGE,
        ["ConvTranspose", "Relu"],
    ),
    "a convolution of one axis written with two": (
        "g (float[N,16,64] x) => (y) { u = Unsqueeze(x, ax) c = Conv(u, w) q = Squeeze(c, ax) "
        "y = BatchNormalization(q, s, b, m, v) }",
        NORM | {"w": normal(24, 16, 1, 3), "ax": np.array([2])},
        (2, 16, 64),
        ["Unsqueeze", "Conv", "Squeeze"],
    ),
    "a convolution and a number": (
        "g (float[N,16,8,8] x) => (y) { c = Conv(x, w) q = Mul(c, f) r = Add(q, a) "
        "y = Mul(r, two) }",
        NCHW | {"w": normal(24, 16, 3, 3), "two": np.float32(2)},
        IMAGE,
        ["Conv"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scales_after_a_layer_are_folded_and_names_stay(tmp_path, case):
    text, weights, shape, left = CASES[case]
    source = write(tmp_path, proto(text, weights=weights))
    made = onnx.load(str(source.path))
    assert fold_channel_scaling(made)
    folded = write(tmp_path, made)

    x = uniform(*shape)
    assert ops(folded) == left
    np.testing.assert_allclose(run(folded, x=x)[0], run(source, x=x)[0], rtol=1e-4, atol=1e-4)
    assert "w" in {tensor.name for tensor in made.graph.initializer}
    assert [o.name for o in made.graph.output] == ["y"]


STAYS = {
    "what varies along another axis": (
        "g (float[N,24,64] x) => (y) { p = MatMul(x, w) y = Mul(p, f) }",
        {"w": normal(64, 24), "f": normal(24, 1)},
    ),
    "a layer whose output is read twice": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) q = Mul(p, f) y = Add(p, q) }",
        {"w": normal(64, 24), "f": normal(24)},
    ),
    "a layer whose output is the graph's": (
        "g (float[N,64] x) => (y, p) { p = MatMul(x, w) y = Mul(p, f) }",
        {"w": normal(64, 24), "f": normal(24)},
    ),
    "a weight that another layer reads": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) q = Mul(p, f) r = MatMul(x, w) "
        "y = Add(q, r) }",
        {"w": normal(64, 24), "f": normal(24)},
    ),
    "a number over what is computed": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) y = Div(f, p) }",
        {"w": normal(64, 24), "f": normal(24)},
    ),
    "an activation between the two": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) r = Relu(p) y = Mul(r, f) }",
        {"w": normal(64, 24), "f": normal(24)},
    ),
    "a factor that makes infinity": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) y = Div(p, f) }",
        {"w": normal(64, 24), "f": np.zeros(24, np.float32)},
    ),
    "channels that a reshape takes apart": (
        "g (float[N,64] x) => (y) { p = MatMul(x, w) r = Reshape(p, to) y = Mul(r, f) }",
        {"w": normal(64, 24), "f": normal(12, 1), "to": np.array([-1, 12, 2])},
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_cannot_be_folded_stays(tmp_path, case):
    text, weights = STAYS[case]
    made = proto(text, weights=weights)
    before = made.SerializeToString()

    assert fold_channel_scaling(made) == 0
    assert made.SerializeToString() == before


def test_integers_stay_and_their_scales_change(tmp_path):
    text = (
        "g (float[N,64] x) => (y) { d = DequantizeLinear<axis = 1>(w, c) p = MatMul(x, d) "
        "q = Mul(p, f) y = Add(q, a) }"
    )
    integers = np.random.default_rng(0).integers(-127, 128, (64, 24)).astype(np.int8)
    weights = FACTOR | {"w": integers, "c": np.full(24, 0.01, np.float32)}
    source = write(tmp_path, proto(text, weights=weights))
    made = onnx.load(str(source.path))
    assert fold_channel_scaling(made) == 2
    folded = write(tmp_path, made)

    x = uniform(4, 64)
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert ops(folded) == ["DequantizeLinear", "Gemm"]
    np.testing.assert_array_equal(np.abs(stored["w"]), np.abs(integers))
    np.testing.assert_allclose(run(folded, x=x)[0], run(source, x=x)[0], rtol=1e-4, atol=1e-4)
