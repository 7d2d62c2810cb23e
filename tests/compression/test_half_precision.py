"""Models that compute in float16 in every pass: a correct result, or the true reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgekit.compression.pass_specs import PASSES
from edgekit.compression.step_runner import run_checked
from edgekit.errors import PassRefused
from edgekit.onnx_graph.io import load
from edgekit.onnx_graph.rewrites.half_precision import compute_in_float32
from edgekit.recipe import Step
from tests.builders.tiny import apply, model, run, samples, work

_RANDOM = np.random.default_rng(3)


def half(*shape, scale=0.2):
    return (_RANDOM.normal(size=shape) * scale).astype(np.float16)


# Each: the graph, its weights, and the inputs.
GRAPHS = {
    "products": (
        "g (float16[N,32] x) => (float16[N,10] y) "
        "{ h = Gemm(x, a, b) r = Relu(h) y = Gemm(r, c) }",
        {"a": half(32, 64), "b": half(64), "c": half(64, 10)},
        {"x": half(48, 32, scale=1)},
    ),
    "convolutions": (
        "g (float16[N,3,8,8] x) => (float16[N,10] y) {"
        " h = Conv<pads = [1, 1, 1, 1]>(x, a) r = Clip(h, zero, six)"
        " k = Conv(r, b) s = Relu(k) p = GlobalAveragePool(s) f = Flatten(p) y = MatMul(f, c) }",
        {
            "a": half(16, 3, 3, 3), "b": half(32, 16, 3, 3), "c": half(32, 10),
            "zero": np.float16(0), "six": np.float16(6),
        },
        {"x": half(48, 3, 8, 8, scale=1)},
    ),
    "casts at the ends": (
        "g (float[N,6,32] x) => (float[N,6,32] y) { h = Cast<to = 10>(x) m = MatMul(h, a)"
        " e = Erf(m) n = MatMul(e, b) s = Add(n, h) y = Cast<to = 1>(s) }",
        {"a": half(32, 96), "b": half(96, 32)},
        {"x": _RANDOM.normal(size=(48, 6, 32)).astype(np.float32)},
    ),
    "an embedding": (
        "g (int64[N,6] x) => (float16[N,6,20] y)"
        " { e = Gather(t, x) h = MatMul(e, a) r = Relu(h) y = MatMul(r, b) }",
        {"t": half(300, 32), "a": half(32, 64), "b": half(64, 20)},
        {"x": _RANDOM.integers(0, 300, size=(48, 6))},
    ),
    "a branch": (
        "g (float16[N,32] x) => (float16[N,10] y) { h = MatMul(x, a) r = Relu(h)"
        " s = ReduceSum<keepdims = 0>(r) c = Greater(s, limit)"
        " y = If(c) <then_branch = t () => (float16[N,10] u) { u = MatMul(r, b) },"
        " else_branch = e () => (float16[N,10] v) { w = MatMul(r, b) v = Neg(w) }> }",
        {"a": half(32, 64), "b": half(64, 10), "limit": np.float16(3)},
        {"x": half(48, 32, scale=1)},
    ),
    "a recurrent layer": (
        "g (float16[N,9,24] x) => (float16[N,8] y) { t = Transpose<perm = [1, 0, 2]>(x)"
        " s, last = LSTM<hidden_size = 32>(t, w, r, b) h = Squeeze(last, axis)"
        " y = MatMul(h, o) }",
        {
            "w": half(1, 128, 24), "r": half(1, 128, 32), "b": half(1, 256), "o": half(32, 8),
            "axis": np.array([0]),
        },
        {"x": half(48, 9, 24, scale=1)},
    ),
}  # fmt: skip
# How far a pass may be off, relative RMS; the first ones lose what they are asked to.
PASSES_TRIED = {
    "quantize-static": ({}, 0.06),
    "quantize-dynamic": ({}, 0.06),
    "quantize-weights": ({"bits": 6.0}, 0.06),
    "prune-channels": ({"remove": 0.15}, 0.6),
    "low-rank": ({"keep": 0.9}, 0.6),
    "prune-weights": ({"sparsity": 0.3}, 0.4),
}

# What no pass could do, and the reason that it gives.
REFUSED = {
    ("a branch", "prune-channels"): "they are read inside If, Loop or Scan",
    ("a recurrent layer", "prune-channels"): "no channels, heads or neurons can be removed",
}


def relative(before, after):
    before, after = before.astype(float), after.astype(float)
    return float(np.sqrt(np.square(after - before).mean() / np.square(before).mean()))


def outputs(source, inputs):
    count = len(next(iter(inputs.values())))
    return np.concatenate([run(source, **{k: v[i : i + 1] for k, v in inputs.items()})[0]
                           for i in range(count)])  # fmt: skip


@pytest.mark.parametrize("step", PASSES_TRIED)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_float16_model_goes_through_every_pass(tmp_path, name, step):
    text, weights, inputs = GRAPHS[name]
    settings, most = PASSES_TRIED[step]
    source = model(tmp_path, text, weights=weights)
    data = samples(tmp_path, **inputs)
    if (name, step) in REFUSED:
        with pytest.raises(PassRefused, match=REFUSED[name, step]):
            apply(step, source, tmp_path, data, **settings)
        return

    made = apply(step, source, tmp_path, data, **settings)

    assert [t.dtype for t in made.signature.inputs] == [t.dtype for t in source.signature.inputs]
    assert [t.dtype for t in made.signature.outputs] == [t.dtype for t in source.signature.outputs]
    assert relative(outputs(source, inputs), outputs(made, inputs)) < most


@pytest.mark.parametrize("step", ["prune-channels", "low-rank", "prune-weights"])
def test_weights_that_stay_float_stay_in_16_bits(tmp_path, step):
    text, weights, inputs = GRAPHS["casts at the ends"]
    source = model(tmp_path, text, weights=weights)

    made = apply(step, source, tmp_path, samples(tmp_path, **inputs))

    stored = onnx.load(str(made.path)).graph.initializer
    assert {t.data_type for t in stored if len(t.dims) > 1} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_result_in_float32_agrees_up_to_half_precision(tmp_path, name):
    text, weights, inputs = GRAPHS[name]
    source = model(tmp_path, text, weights=weights)
    wide = load(source.path)

    compute_in_float32(wide)

    assert not any(t.data_type == TensorProto.FLOAT16 for t in wide.graph.initializer)
    path = tmp_path / "wide.onnx"
    path.write_bytes(wide.SerializeToString())
    made = type(source)(**{**vars(source), "path": path})
    assert relative(outputs(source, inputs), outputs(made, inputs)) < 5e-3


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "a branch"])
def test_a_float16_model_keeps_16_bit_weights_as_tflite(tmp_path, name):
    text, weights, inputs = GRAPHS[name]
    source = model(tmp_path, text, weights=weights)

    made = apply("to-tflite", source, tmp_path, samples(tmp_path, **inputs))

    assert made.bytes < 1.5 * source.bytes + 4096


def test_a_pass_says_that_it_computes_in_float32(tmp_path):
    text, weights, inputs = GRAPHS["products"]
    source = model(tmp_path, text, weights=weights)
    spec = PASSES["quantize-static"]
    step = Step(name="quantize-static", version=spec.version, settings=spec.settings())

    made = run_checked(step, source, work(tmp_path, samples(tmp_path, **inputs)))

    assert any("computes in float16" in note for note in made.notes)
