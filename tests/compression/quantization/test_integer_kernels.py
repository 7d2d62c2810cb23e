"""Layers run in integer kernels without a previous clean; notes name those that cannot."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

from edgekit.compression.checks.timing import measure_time_ratio
from edgekit.compression.pass_specs import PASSES
from edgekit.compression.quantization.integer_kernels import find_float_layers
from edgekit.compression.step_runner import run_checked
from edgekit.onnx_graph.io import open_session
from edgekit.recipe import Step
from tests.builders.tiny import (
    apply,
    fused_ops,
    model,
    normal,
    ops,
    proto,
    run,
    samples,
    sqnr_db,
    uniform,
)
from tests.builders.tiny import work as work_of

WIDTHS = (64, 48, 8, 48, 64)


def autoencoder(norm):
    """Dense layers, each with what training leaves behind it."""
    weights, body = {}, ""
    for i, (into, out) in enumerate(itertools.pairwise(WIDTHS)):
        here = "x" if i == 0 else f"h{i}"
        weights |= {f"w{i}": normal(into, out, scale=into**-0.5, seed=i), f"b{i}": normal(out)}
        body += f"p{i} = MatMul({here}, w{i}) q{i} = Add(p{i}, b{i}) "
        if norm == "normalization":
            weights |= {f"{n}{i}": normal(out, seed=i) for n in "sam"}
            weights |= {f"v{i}": uniform(out, seed=i) + np.float32(1.5)}
            body += f"n{i} = BatchNormalization(q{i}, s{i}, a{i}, m{i}, v{i}) "
        else:
            weights |= {f"s{i}": normal(out, seed=i), f"a{i}": normal(out, seed=i + 9)}
            body += f"t{i} = Mul(q{i}, s{i}) n{i} = Add(t{i}, a{i}) "
        body += f"y = Tanh(n{i}) " if i == len(WIDTHS) - 2 else f"h{i + 1} = Relu(n{i}) "
    return f"g (float[N,64] x) => (float[N,64] y) {{ {body} }}", weights


@pytest.mark.parametrize("before", [(), ("quantize-weights",), ("clean",)])
@pytest.mark.parametrize("norm", ["normalization", "factor and sum"])
def test_an_autoencoder_needs_no_clean_to_run_in_integers(tmp_path, norm, before):
    text, weights = autoencoder(norm)
    source = model(tmp_path, text, weights=weights)
    x = uniform(32, 64)
    data = samples(tmp_path, x=x)
    start = source
    for name in before:
        start = apply(name, start, tmp_path, data)
    made = apply("quantize-static", start, tmp_path, data)

    found = fused_ops(made, tmp_path)
    assert found.count("QGemm") == len(WIDTHS) - 1
    assert set(found) <= {"QGemm", "QuantizeLinear", "DequantizeLinear", "Tanh"}
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 15


@pytest.mark.parametrize("activation", ["Relu(c)", "Clip(c, low, high)"])
@pytest.mark.parametrize("layer", ["Gemm(x, w, k)", "Gemm(x, w)", "MatMul(x, w)"])
def test_a_product_before_an_activation_and_a_float_operator_has_an_integer_kernel(
    tmp_path, layer, activation
):
    text = f"g (float[N,64] x) => (y) {{ c = {layer} r = {activation} y = Softmax(r) }}"
    weights = {"w": normal(64, 48, scale=0.1), "k": normal(48)} | {
        "low": np.float32(0),
        "high": np.float32(6),
    }
    source = model(tmp_path, text, weights={k: v for k, v in weights.items() if k in text})
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=uniform(16, 64)))

    assert not set(fused_ops(made, tmp_path)) & {"Gemm", "FusedGemm", "MatMul"}


def test_an_autoencoder_that_was_not_cleaned_is_faster_in_int8(tmp_path, monkeypatch):
    """With dequantized weights it took over ten times as long as in float."""
    monkeypatch.setattr(
        "tests.compression.quantization.test_integer_kernels.WIDTHS", (640, 512, 8, 512, 640)
    )
    text, weights = autoencoder("normalization")
    text = text.replace("[N,64]", "[N,640]")
    source = model(tmp_path, text, weights=weights)
    x = uniform(32, 640)
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=x))

    sessions = [open_session(each.path) for each in (source, made)]
    assert measure_time_ratio(*(partial(s.run, None, {"x": x[:1]}) for s in sessions)) < 1.0


def notes(name, source, folder, data):
    spec, work = PASSES[name], work_of(folder, data)
    step = Step(name=name, version=spec.version, settings=spec.settings())
    return run_checked(step, source, work).notes


IN_FLOAT = {
    "a recurrent layer": (
        "g (float[5,1,64] x) => (y) { z, h = GRU<hidden_size = 32>(x, w, r) s = Squeeze(h, ax) "
        "y = Gemm(s, v) }",
        {
            "w": normal(1, 96, 64),
            "r": normal(1, 96, 32),
            "v": normal(32, 64),
            "ax": np.array([0]),
        },
        (5, 1, 64),
        "z: onnxruntime has no integer kernel for GRU",
    ),
    "a batch of matrices": (
        "g (float[N,3,8,24] x) => (y) { m = MatMul(x, w) r = Relu(m) y = MatMul(r, v) }",
        {"w": normal(3, 24, 32), "v": normal(32, 64)},
        (8, 3, 8, 24),
        "m: integer kernels support one weight matrix",
    ),
}


@pytest.mark.parametrize("case", IN_FLOAT)
@pytest.mark.parametrize("name", ["quantize-static", "quantize-dynamic"])
def test_a_layer_that_stays_in_float_is_named_with_the_reason(tmp_path, name, case):
    text, weights, shape, said = IN_FLOAT[case]
    source = model(tmp_path, text, weights=weights)

    told = notes(name, source, tmp_path, samples(tmp_path, x=uniform(*shape)))

    assert [note for note in told if f"computed in float: {said}" in note]


def test_a_model_all_in_integers_names_no_layer_in_float(tmp_path):
    text, weights = autoencoder("normalization")
    source = model(tmp_path, text, weights=weights)

    told = notes("quantize-static", source, tmp_path, samples(tmp_path, x=uniform(16, 64)))

    assert not [note for note in told if "in float" in note]


def test_a_weight_that_no_integer_kernel_reads_is_widened_at_load_only(tmp_path):
    integers = np.random.default_rng(0).integers(-127, 128, (32, 16, 3, 3)).astype(np.int8)
    text = (
        "g (float[8,16,8,8] x) => (float[8,8,4,4] y) { d = DequantizeLinear<axis = 0>(w, s) "
        "m = ReduceMean<keepdims = 0>(x, axes) k = MatMul(m, u) c = Conv(x, d, k) y = Conv(c, v) }"
    )
    weights = {
        "w": integers,
        "s": np.full(32, 0.002, np.float32),
        "axes": np.array([0, 2, 3]),
        "u": normal(16, 32),
        "v": normal(8, 32, 3, 3),
    }
    source = model(tmp_path, text, weights=weights, opset=18)
    x = uniform(8, 16, 8, 8)
    work = work_of(tmp_path, samples(tmp_path, x=x))
    spec = PASSES["quantize-static"]
    made = run_checked(
        Step(name="quantize-static", version=spec.version, settings=spec.settings()), source, work
    )

    assert not any("dequantized" in note for note in made.notes)
    assert {"Cast", "Mul"} <= set(ops(made.model))
    fused = fused_ops(made.model, tmp_path)
    assert "Cast" not in fused
    assert "Mul" not in fused
    assert sqnr_db(run(source, x=x)[0], run(made.model, x=x)[0]) > 25


def test_weights_dequantized_at_each_inference_are_found_in_the_runtimes_own_graph(tmp_path):
    text = (
        "g (float[N,16,8,8] x) => (y) { d = DequantizeLinear<axis = 0>(w, s) first = Conv(x, d) "
        "y = Softmax(first) }"
    )
    weights = {"w": np.ones((32, 16, 3, 3), np.int8), "s": np.full(32, 0.1, np.float32)}
    made = proto(text, weights=weights)

    (layer,) = find_float_layers(made, tmp_path)

    assert layer.name == "first"
    assert layer.dequantized


def test_a_weight_of_one_matrix_is_not_called_a_batch_once_it_is_widened(tmp_path):
    # The runtime makes a Gemm of product and sum, whose bias is no constant then.
    text = (
        "g (float[1,32] x, float[1,64] h) => (float[1,64] y) { a = MatMul(x, u) b = MatMul(h, w) "
        "c = Add(a, b) y = Tanh(c) }"
    )
    source = model(tmp_path, text, weights={"u": normal(32, 64), "w": normal(64, 64)})
    data = samples(tmp_path, x=uniform(64, 32), h=uniform(64, 64))

    told = notes("quantize-static", source, tmp_path, data)

    assert not [note for note in told if "batch" in note]
