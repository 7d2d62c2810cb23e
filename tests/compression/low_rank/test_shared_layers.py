"""Factorization of weights that several layers share, as in ALBERT."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.pass_settings import LowRank
from tests.builders.tiny import apply, model, run, samples, sqnr_db, work

_RANDOM = np.random.default_rng(3)
WIDE, MANY = 64, 128


def normal(*shape):
    return _RANDOM.normal(size=shape).astype(np.float32)


def thin(*shape):
    """A weight of rank 8, of a size that keeps activations as they are."""
    inner, outer = np.prod(shape[1:]), shape[0]
    made = normal(outer, 8) @ normal(8, inner) / np.sqrt(8 * inner)
    return made.reshape(shape).astype(np.float32)


ALBERT = " ".join(
    f"f{n} = MatMul(x{n}, w) g{n} = Add(f{n}, b) r{n} = Relu(g{n}) h{n} = MatMul(r{n}, v)"
    f" x{n + 1} = Add(h{n}, x{n})"
    for n in range(3)
)
KINDS = {
    "layers of a transformer": (
        f"g (float[N,5,{WIDE}] x0) => (float[N,5,{WIDE}] y) {{ {ALBERT} y = Neg(x3) }}",
        {"w": (WIDE, MANY), "b": (MANY,), "v": (MANY, WIDE)}, (5, WIDE),
    ),
    "Gemms with biases of their own": (
        f"g (float[N,{WIDE}] x0) => (float[N,{WIDE}] y)"
        " { h = Gemm(x0, w, b) r = Relu(h) k = Gemm(r, w, c) y = Relu(k) }",
        {"w": (WIDE, WIDE), "b": (WIDE,), "c": (WIDE,)}, (WIDE,),
    ),
    "convolutions of two levels": (
        "g (float[N,16,8,8] x0) => (float[N,32,8,8] y, float[N,32,4,4] z)"
        " { p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x0)"
        " y = Conv<pads = [1, 1, 1, 1]>(x0, w, b) z = Conv<pads = [1, 1, 1, 1]>(p, w, c) }",
        {"w": (32, 16, 3, 3), "b": (32,), "c": (32,)}, (16, 8, 8),
    ),
    "batches of matrices": (
        f"g (float[N,3,5,{WIDE}] x0) => (float[N,3,5,{WIDE}] y)"
        " { h = MatMul(x0, w) r = Relu(h) y = MatMul(r, w) }",
        {"w": (3, WIDE, WIDE)}, (3, 5, WIDE),
    ),
}  # fmt: skip


def weight(shape):
    if len(shape) == 3:
        return np.stack([thin(*shape[1:]) for _ in range(shape[0])])
    return thin(*shape) if len(shape) > 1 else normal(*shape)


@pytest.mark.parametrize("score", ["activations", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_with_one_weight_share_its_factors(tmp_path, kind, score):
    text, shapes, shape = KINDS[kind]
    source = model(tmp_path, text, weights={n: weight(s) for n, s in shapes.items()})
    feeds = {"x0": normal(64, *shape)}
    made = apply("low-rank", source, tmp_path, samples(tmp_path, **feeds), keep=0.5, score=score)

    stored = onnx.load(str(made.path)).graph.initializer
    factors = [t for t in stored if len(t.dims) > 1]
    assert len(factors) == 2 * sum(len(s) > 1 for s in shapes.values())
    assert made.bytes < 0.7 * source.bytes
    for exact, found in zip(run(source, **feeds), run(made, **feeds), strict=True):
        assert sqnr_db(exact, found) > 50


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "h = MatMul(x0, w) y = MatMul(h, v) r = Transpose<perm = [1, 0]>(w) z = MatMul(h, r)",
            "w (MatMul, 64 x 64) is shared by 2 nodes",
        ),
        (
            'h = MatMul(x0, v) y = Einsum<equation = "nio,ab->nob">(h, w) z = MatMul(h, w)',
            "w (Einsum, 64 x 64) belongs to Einsum, whose weights this pass does not change",
        ),
    ],
    ids=["and its transpose", "and another operator"],
)
def test_a_large_weight_that_is_not_factorized_is_noted_with_the_reason(tmp_path, body, reason):
    text = f"g (float[N,5,{WIDE}] x0) => (float[N,5,{WIDE}] y, float[N,5,{WIDE}] z) {{ {body} }}"
    weights = {"w": thin(WIDE, WIDE), "v": thin(WIDE, WIDE)}
    if "Einsum" in body:
        text = text.replace(f"float[N,5,{WIDE}] y", f"float[N,{WIDE},{WIDE}] y")
    source = model(tmp_path, text, weights=weights)
    data = samples(tmp_path, x0=normal(64, 5, WIDE))

    found = run_checked(build_step(LowRank()), source, work(tmp_path, data))

    assert f"weights not factorized: {reason}" in found.notes
