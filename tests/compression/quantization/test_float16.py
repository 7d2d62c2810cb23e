"""Weights in float16: half the file, the same outputs, and no overflow."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.errors import PassRefused
from tests.builders.tiny import apply, fused_ops, model, normal, run, samples, uniform

TEXT = (
    "g (float[N,64] x) => (float[N,64] y) "
    "{ h = MatMul(x, w) n = LayerNormalization(h, s, b) y = MatMul(n, v) }"
)
WEIGHTS = {
    "w": normal(64, 64, scale=0.1),
    "v": normal(64, 64, scale=0.1, seed=1),
    "s": np.full(64, 1e5, np.float32),
    "b": normal(64),
}


def test_the_file_is_half_as_large_and_the_answers_are_the_same(tmp_path):
    source = model(tmp_path, TEXT, weights=WEIGHTS)
    x = uniform(8, 64)
    made = apply("float16", source, tmp_path, samples(tmp_path, x=x))

    before, after = run(source, x=x)[0], run(made, x=x)[0]

    assert made.bytes < 0.6 * source.bytes
    assert after.dtype == np.float32
    assert np.abs(after - before).max() < 2e-3 * np.abs(before).max()


def test_the_runtime_widens_the_weights_once_and_computes_in_float32(tmp_path):
    source = model(tmp_path, TEXT, weights=WEIGHTS)
    made = apply("float16", source, tmp_path, samples(tmp_path, x=uniform(8, 64)))

    assert sorted(fused_ops(made, tmp_path)) == sorted(fused_ops(source, tmp_path))


@pytest.mark.parametrize("scale", [1e6, 1e-9], ids=["too large", "too small"])
def test_weights_outside_the_range_of_float16_stay_as_they_are(tmp_path, scale):
    source = model(tmp_path, TEXT, weights=WEIGHTS | {"w": WEIGHTS["w"] * np.float32(scale)})
    made = apply("float16", source, tmp_path, samples(tmp_path, x=uniform(8, 64)))

    stored = [t.data_type for t in onnx.load(str(made.path)).graph.initializer if len(t.dims) == 2]
    assert sorted(stored) == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]


def test_a_model_without_large_weights_is_refused(tmp_path):
    source = model(tmp_path, "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")

    with pytest.raises(PassRefused, match="stores no float32 tensors"):
        apply("float16", source, tmp_path, samples(tmp_path, x=uniform(4, 4)))


@pytest.mark.parametrize("then", ["prune-weights", "prune-channels", "low-rank"])
def test_passes_that_shrink_a_graph_keep_weights_in_16_bits(tmp_path, then):
    wide = model(
        tmp_path,
        "g (float[N,32] x) => (float[N,10] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        weights={"w": normal(32, 64), "v": normal(64, 10)},
    )
    narrow = apply("float16", wide, tmp_path)

    made = apply(then, narrow, tmp_path, samples(tmp_path, x=normal(32, 32)))

    stored = onnx.load(str(made.path)).graph.initializer
    assert {t.data_type for t in stored if len(t.dims) == 2} == {onnx.TensorProto.FLOAT16}


def test_weights_in_16_bits_already_are_refused_with_that_reason(tmp_path):
    source = model(tmp_path, TEXT, weights=WEIGHTS)
    narrow = apply("float16", source, tmp_path, samples(tmp_path, x=uniform(8, 64)))

    with pytest.raises(PassRefused, match="already stores its weights as float16"):
        apply("float16", narrow, tmp_path, samples(tmp_path, x=uniform(8, 64)))


def test_weights_too_small_for_16_bits_are_refused_with_their_size(tmp_path):
    source = model(
        tmp_path,
        "g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }",
        weights={"w": normal(4, 3)},
    )

    with pytest.raises(PassRefused, match="w, has 12 entries, fewer than 1024"):
        apply("float16", source, tmp_path, samples(tmp_path, x=uniform(4, 4)))


@pytest.mark.parametrize(
    "head",
    ["t = Transpose<perm = [1, 0]>(e) y = MatMul(h, t)",
     "c = Transpose<perm = [0, 2, 1]>(h) l = MatMul(e, c) y = Transpose<perm = [0, 2, 1]>(l)"],
    ids=["on the right", "on the left"],
)  # fmt: skip
def test_an_embedding_that_is_also_the_output_layer_is_stored_once(tmp_path, head):
    text = f"g (int64[N,7] i) => (float[N,7,300] y) {{ r = Gather(e, i) h = MatMul(r, w) {head} }}"
    weights = {"e": normal(300, 32), "w": normal(32, 32, seed=1)}
    source = model(tmp_path, text, weights=weights)
    rows = np.random.default_rng(0).integers(0, 300, size=(8, 7))

    made = apply("float16", source, tmp_path, samples(tmp_path, i=rows))

    assert made.bytes < 0.55 * source.bytes
    assert run(made, i=rows)[0] == pytest.approx(run(source, i=rows)[0], abs=0.1)
