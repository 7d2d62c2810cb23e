"""The runner checks quantized results, classes, free dimensions and memory."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgekit.compression.pass_specs import INT8_WEIGHTS, PASSES, PassSpec, Promise, build_step
from edgekit.errors import PassRefused, UserError
from edgekit.onnx_graph.io import read_onnx
from edgekit.pass_settings import Clean, QuantizeDynamic, QuantizeStatic
from tests.builders.broken_passes import (
    EXACT,
    NET,
    WEIGHTS,
    replace_constants,
    run_broken_pass,
    write_edited,
)
from tests.builders.tiny import apply, model, normal, run, samples, uniform, work

BIG = {"w": normal(64, 512), "v": normal(512, 10, seed=1)}


BIG_NET = "g (float[N,64] x) => (float[N,10] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"


def forgets_to_quantize(source, settings, work):
    return write_edited(source, work, lambda graph: None)


def stores_integers_as_floats(source, settings, work):
    """Fake quantization: the values are those of 8 bits, and so is an int8 beside them."""
    rounded = np.round(BIG["w"] * 40).astype(np.float32) / 40

    def edit(graph):
        replace_constants(w=rounded)(graph)
        graph.initializer.append(numpy_helper.from_array(np.ones(4, np.int8), "proof"))

    return write_edited(source, work, edit)


def stores_wide_integers(source, settings, work):
    """Integers of 32 bits, which save nothing."""

    def edit(graph):
        wide = numpy_helper.from_array(np.round(BIG["w"] * 40).astype(np.int32), "w32")
        graph.initializer.extend(
            [
                wide,
                numpy_helper.from_array(np.float32(1 / 40), "s"),
                numpy_helper.from_array(np.ones(4, np.int8), "proof"),
            ]
        )
        kept = [t for t in graph.initializer if t.name != "w"]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.node.insert(0, helper.make_node("DequantizeLinear", ["w32", "s"], ["w"]))

    return write_edited(source, work, edit)


def _quantized(source, work, edit):
    """Return a correct result after an edit that breaks it."""
    made = apply("quantize-dynamic", source, work.scratch)
    return write_edited(made, work, edit)


def answers_zero(source, settings, work):
    def silence(graph):
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
        graph.node.append(helper.make_node("Mul", ["inner", "zero"], ["y"]))

    return _quantized(source, work, silence)


def answers_upside_down(source, settings, work):
    def negate(graph):
        graph.node[-1].output[0] = "inner"
        graph.node.append(helper.make_node("Neg", ["inner"], ["y"]))

    return _quantized(source, work, negate)


def answers_far_too_loudly(source, settings, work):
    def shout(graph):
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.float32(128), "loud"))
        graph.node.append(helper.make_node("Mul", ["inner", "loud"], ["y"]))

    return _quantized(source, work, shout)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (forgets_to_quantize, "stored no int8 weights, but 151552 bytes of float32"),
        (stores_integers_as_floats, "did not reduce the float weights: 151552 bytes, before "),
        (stores_wide_integers, "wrote a file of "),
        (
            answers_zero,
            "output y no longer follows the original's: their correlation on 16 samples is 0.00",
        ),
        (
            answers_upside_down,
            "output y no longer follows the original's: their correlation on 16 samples is -1.00",
        ),
        (answers_far_too_loudly, "output y differs from the original's by 1.3e+02 (relative RMS)"),
    ],
)
def test_a_quantizing_pass_must_store_integers(tmp_path, monkeypatch, function, complaint):
    source = model(tmp_path, BIG_NET, weights=BIG)
    data = samples(tmp_path, x=normal(40, 64))

    said = run_broken_pass(function, INT8_WEIGHTS, source, tmp_path, monkeypatch, data)

    assert said.startswith("culprit: ")
    assert complaint in said


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_of_two_bits_are_a_poor_result_but_no_broken_promise(tmp_path, bits):
    source = model(tmp_path, BIG_NET, weights=BIG)
    data = samples(tmp_path, x=normal(40, 64))

    made = apply("quantize-weights", source, tmp_path, data, bits=bits)

    assert made.bytes < source.bytes / 3


def picks_one_class(source, settings, work):
    def pick(graph):
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.int64(0), "none"))
        graph.node.append(helper.make_node("Mul", ["inner", "none"], ["y"]))

    return write_edited(source, work, pick)


def test_a_class_that_is_the_same_on_every_sample_is_refused(tmp_path, monkeypatch):
    text = "g (float[N,6] x) => (int64[N] y) { h = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(h) }"
    source = model(tmp_path, text, weights=WEIGHTS)
    data = samples(tmp_path, x=normal(40, 6))

    said = run_broken_pass(picks_one_class, Promise(), source, tmp_path, monkeypatch, data)

    assert "output y is the same for every sample" in said


def test_an_exact_pass_predicts_the_same_classes(tmp_path, monkeypatch):
    text = "g (float[N,6] x) => (int64[N] y) { h = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(h) }"
    source = model(tmp_path, text, weights=WEIGHTS)
    data = samples(tmp_path, x=normal(40, 6))

    said = run_broken_pass(takes_the_smallest, EXACT, source, tmp_path, monkeypatch, data)

    assert "changed integer outputs: only 0 % of the values are equal" in said


def takes_the_smallest(source, settings, work):
    def turn(graph):
        graph.node[1].input[0] = "turned"
        graph.node.insert(1, helper.make_node("Neg", ["h"], ["turned"]))

    return write_edited(source, work, turn)


def test_a_free_dimension_has_to_stay_free(tmp_path, monkeypatch):
    text = "g (float[N,T] x) => (float[N,T] y) { h = Relu(x) y = Add(h, h) }"
    source = model(tmp_path, text)
    data = samples(tmp_path, x=uniform(20, 8))

    said = run_broken_pass(fixes_eight, EXACT, source, tmp_path, monkeypatch, data)

    assert said.startswith("culprit: the compressed model fails on a sample cut to half its size")


def fixes_eight(source, settings, work):
    def reshape(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, 8]), "shape"))
        graph.node.append(helper.make_node("Reshape", ["inner", "shape"], ["y"]))

    return write_edited(source, work, reshape)


@pytest.mark.parametrize("cleaned", [False, True])
def test_infinities_that_the_original_stores_may_stay(tmp_path, cleaned):
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    text = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) m = Add(h, k) y = Softmax(m) }"
    source = model(tmp_path, text, weights={"w": normal(6, 4), "k": mask})

    start = apply("clean", source, tmp_path) if cleaned else source
    made = apply("quantize-dynamic", start, tmp_path, samples(tmp_path, x=normal(20, 6)))

    assert run(made, x=normal(2, 6))[0][:, 1].tolist() == [0, 0]


def test_the_number_of_detections_may_differ(tmp_path, monkeypatch):
    """Their number follows the data, so a quantized detector may find others."""
    text = (
        "g (float[N,6] x) => (float[N,4] y, int64[2,found] at) { y = MatMul(x, w) at = NonZero(y) }"
    )
    source = model(tmp_path, text, weights=WEIGHTS)

    row = PassSpec(
        settings=Clean, function=f"{__name__}:finds_fewer", summary="", version=1, promise=EXACT
    )
    monkeypatch.setitem(PASSES, "fewer", row)

    made = apply("fewer", source, tmp_path, samples(tmp_path, x=uniform(20, 6)))

    assert run(made, x=normal(4, 6))[1].shape[1] < 16


def finds_fewer(source, settings, work):
    def positive_only(graph):
        graph.node[1].input[0] = "positive"
        graph.node.insert(1, helper.make_node("Relu", ["y"], ["positive"]))

    return write_edited(source, work, positive_only)


def test_peak_memory_is_that_of_one_model(tmp_path):
    """32 MB of weights: two sessions at once, or copies of the file, would show."""
    weights = {"w": normal(2048, 2048), "v": normal(2048, 2048, seed=1)}
    text = "g (float[N,2048] x) => (float[N,2048] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    source = model(tmp_path, text, weights=weights)
    other = write_edited(source, work(tmp_path), lambda graph: None)
    data = samples(tmp_path, x=uniform(20, 2048))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import pickle\n"
        "from edgekit.onnx_graph.io import read_onnx\n"
        "from edgekit.compression.checks.agreement import compare_models\n"
        "before, after, data = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "compare_models(before, after, data, seed=0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - least)\n"
    )
    made = read_onnx(other)
    sent = pickle.dumps((source, made, data)).hex()
    done = subprocess.run(
        [sys.executable, "-c", code, sent], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100 << 10, "KiB"


def test_without_calibration_data_static_quantization_is_refused_and_the_others_run(tmp_path):
    source = model(tmp_path, NET, weights=WEIGHTS)

    with pytest.raises(PassRefused, match="calibration"):
        apply("quantize-static", source, tmp_path)
    cleaned = apply("clean", source, tmp_path)
    dynamic = apply("quantize-dynamic", cleaned, tmp_path)

    x = uniform(3, 6)
    np.testing.assert_allclose(run(dynamic, x=x)[0], run(source, x=x)[0], atol=0.05)


def test_samples_that_the_model_fails_on_are_a_user_error(tmp_path):
    text = "g (int64[N] i) => (float[N,3] y) { h = Gather(t, i) y = MatMul(h, w) }"
    source = model(tmp_path, text, weights={"t": normal(5, 3), "w": normal(3, 3)})
    data = samples(tmp_path, i=np.array([0, 1, 99]))

    with pytest.raises(UserError, match="the model fails on sample 2"):
        apply("quantize-static", source, tmp_path, data)


def test_samples_of_another_shape_are_an_error_of_the_user(tmp_path):
    source = model(tmp_path, NET, weights=WEIGHTS)

    with pytest.raises(UserError, match=r"input x has shape \[N, 6\], the data \[1, 5\]"):
        apply("quantize-static", source, tmp_path, samples(tmp_path, x=uniform(4, 5)))


def test_a_tflite_model_is_refused_by_passes_on_onnx(tmp_path):
    from dataclasses import replace

    source = replace(model(tmp_path, NET, weights=WEIGHTS), format="tflite")

    with pytest.raises(PassRefused, match="clean processes onnx models, not tflite"):
        apply("clean", source, tmp_path)


@pytest.mark.parametrize("settings", [Clean(), QuantizeStatic(), QuantizeDynamic()])
def test_a_step_is_named_as_in_the_table(settings):
    made = build_step(settings)

    assert PASSES[made.name].settings is type(settings)
    assert made.version == PASSES[made.name].version


@pytest.mark.parametrize("step", ["prune-channels", "low-rank"])
def test_products_are_counted_at_the_size_of_the_samples_where_an_axis_is_free(tmp_path, step):
    # With a length of 1, as free axes count without samples, nothing is left after the first layer.
    text = (
        "g (float[N,T] x) => (float[N,5] y) { u = Unsqueeze(x, axis)"
        " f = Conv<strides = [16]>(u, frames) a = Abs(f) h = Conv<pads = [1, 1]>(a, w) r = Relu(h)"
        " p = GlobalAveragePool(r) q = Flatten(p) y = Gemm(q, v) }"
    )
    weights = {
        "axis": [1], "frames": normal(24, 1, 32), "w": normal(8, 24, 3, seed=1),
        "v": normal(8, 5, seed=2),
    }  # fmt: skip
    source = model(tmp_path, text, weights=weights)

    made = apply(step, source, tmp_path, samples(tmp_path, x=normal(32, 512)))

    assert made.bytes < source.bytes


@pytest.mark.parametrize(
    "step", ["quantize-static", "quantize-dynamic", "quantize-weights", "prune-weights", "low-rank"]
)
def test_an_output_that_is_infinite_in_places_is_refused_with_the_reason(tmp_path, step):
    text = (
        "g (float[N,40,24] x) => (float[N,40,24] y, float[N,40,64] l)"
        " { h = MatMul(x, a) r = Relu(h) l = Log(r) y = MatMul(r, b) }"
    )
    source = model(tmp_path, text, weights={"a": normal(24, 64), "b": normal(64, 24, seed=1)})

    with pytest.raises(
        PassRefused, match=r"output l of .* the output also has infinite values elsewhere"
    ):
        apply(step, source, tmp_path, samples(tmp_path, x=normal(48, 40, 24)))
