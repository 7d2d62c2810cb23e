"""What a pass promises is held against what it returns, and the blame has a name."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.compression.registry import INT8_WEIGHTS, PASSES, PassSpec, Promise, build_step
from edgekit.errors import PassError, PassRefused, UserError
from edgekit.onnx_graph.io import read_onnx
from edgekit.recipe import Clean, QuantizeDynamic, QuantizeStatic
from tests.builders.tiny import apply, model, normal, run, samples, uniform, work

NET = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = Relu(h) }"
WEIGHTS = {"w": normal(6, 4)}


def _edited(source, work, edit):
    proto = onnx.load(str(source.path))
    edit(proto.graph)
    proto.graph.doc_string = "edited"
    path = work.scratch / "edited.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def _with_constants(**arrays):
    """What puts other values in the place of stored ones."""

    def edit(graph):
        for tensor in graph.initializer:
            if tensor.name in arrays:
                tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))

    return edit


def returns_its_input(source, settings, work):
    return source.path


def returns_rubbish(source, settings, work):
    path = work.scratch / "rubbish.onnx"
    path.write_bytes(b"rubbish")
    return path


def renames_the_output(source, settings, work):
    def rename(graph):
        graph.node[1].output[0] = graph.output[0].name = "renamed"

    return _edited(source, work, rename)


def changes_the_type(source, settings, work):
    def cast(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("Cast", ["inner"], ["y"], to=TensorProto.DOUBLE))
        graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    return _edited(source, work, cast)


def adds_an_axis(source, settings, work):
    def wrap(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        graph.node.append(helper.make_node("Unsqueeze", ["inner", "axes"], ["y"]))
        graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1

    return _edited(source, work, wrap)


def changes_the_shape(source, settings, work):
    def sum_up(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("ReduceSum", ["inner"], ["y"], keepdims=0))
        graph.output[0].type.tensor_type.shape.ClearField("dim")

    return _edited(source, work, sum_up)


def fixes_the_batch_inside(source, settings, work):
    def reshape(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.array([1, 4]), "shape"))
        graph.node.append(helper.make_node("Reshape", ["inner", "shape"], ["y"]))

    return _edited(source, work, reshape)


def divides_by_zero(source, settings, work):
    def divide(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("Sub", ["inner", "inner"], ["zero"]))
        graph.node.append(helper.make_node("Div", ["inner", "zero"], ["y"]))

    return _edited(source, work, divide)


def stores_a_nan(source, settings, work):
    return _edited(source, work, _with_constants(w=np.full((6, 4), np.nan, np.float32)))


def stores_an_infinity(source, settings, work):
    return _edited(source, work, _with_constants(w=np.full((6, 4), np.inf, np.float32)))


def adds_a_little(source, settings, work):
    return _edited(source, work, _with_constants(w=1.01 * WEIGHTS["w"]))


def carries_ballast(source, settings, work):
    def load(graph):
        graph.initializer.append(numpy_helper.from_array(normal(100, 100), "ballast"))

    return _edited(source, work, load)


EXACT = Promise(max_relative_error=1e-3, exact=True)


def broken(function, promise, source, folder, monkeypatch, data=None):
    """The complaint about a pass that keeps nothing of its promise."""
    row = PassSpec(
        settings=Clean,
        function=f"{__name__}:{function.__name__}",
        summary="breaks a promise",
        version=1,
        promise=promise,
    )
    monkeypatch.setitem(PASSES, "culprit", row)
    with pytest.raises(PassError) as caught:
        apply("culprit", source, folder, data)
    return caught.value.message


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (returns_its_input, "promised another file: it is unchanged"),
        (returns_rubbish, "the result does not load"),
        (renames_the_output, "promised the same outputs: they are renamed float32"),
        (changes_the_type, "promised the same outputs: they are y float64 [N, 4], were y float32"),
        (adds_an_axis, "promised outputs of the same shapes: they are y float32 [N, 4, 1]"),
        (changes_the_shape, "output y of sample 0 is [], was [1, 4]"),
        (fixes_the_batch_inside, "the result fails on 3 samples at once"),
        (divides_by_zero, "output y of sample 0 is not finite where that of the original is"),
        (stores_a_nan, "promised finite values: the stored tensor w holds NaN"),
        (stores_an_infinity, "promised finite values: the stored tensor w holds infinity"),
        (adds_a_little, "output y differs from the original's by 0.01 relative RMS, more than"),
        (carries_ballast, "promised a file of at most 5324 bytes"),
    ],
)
def test_a_result_that_breaks_a_promise_is_the_fault_of_the_pass_that_made_it(
    tmp_path, monkeypatch, function, complaint
):
    source = model(tmp_path, NET, weights=WEIGHTS)
    data = samples(tmp_path, x=np.abs(uniform(6, 6)))

    said = broken(function, EXACT, source, tmp_path, monkeypatch, data)

    assert said.startswith(f"culprit: {complaint}"), said


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (returns_its_input, "it is unchanged"),
        (divides_by_zero, "output y of made-up inputs is not finite"),
        (fixes_the_batch_inside, "the result fails on made-up inputs"),
        (changes_the_shape, "output y of made-up inputs is []"),
        (adds_a_little, "output y differs from the original's by 0.01"),
    ],
)
def test_without_samples_the_promises_are_held_against_made_up_inputs(
    tmp_path, monkeypatch, function, complaint
):
    source = model(tmp_path, NET, weights=WEIGHTS)

    assert complaint in broken(function, EXACT, source, tmp_path, monkeypatch)


CLIPPED = """g (float[N,6] x) => (float[N,4] y) {
  h = MatMul(x, w) c = Clip(h, low, high) y = Identity(c) }"""
TIE = """g (float[N,6] x) => (float[N,4] y) {
  h = MatMul(x, w) p = Mul(h, huge) c = Cos(p) y = Identity(c) }"""
LIMITS = {"low": np.float32(-50), "high": np.float32(50)}


def forgets_the_clip(source, settings, work):
    """Wrong beyond 50 alone, where noise of 1 doesn't come."""
    return _edited(source, work, _with_constants(low=np.float32(-1e9), high=np.float32(1e9)))


def forgets_the_negative_clip(source, settings, work):
    return _edited(source, work, _with_constants(low=np.float32(-1e9)))


def cuts_off_what_is_faint(source, settings, work):
    def shrink(graph):
        graph.node[1].op_type, graph.node[1].input[:] = "Shrink", ["h"]
        graph.node[1].attribute.append(helper.make_attribute("lambd", 1e-3))

    return _edited(source, work, shrink)


def rounds_on_the_way(source, settings, work):
    def swap(graph):
        graph.node[0].output[0] = "whole"
        graph.initializer.append(numpy_helper.from_array(np.float32(9), "nine"))
        graph.initializer.append(numpy_helper.from_array(np.float32(-9), "minus"))
        graph.node.insert(1, helper.make_node("Add", ["whole", "nine"], ["moved"]))
        graph.node.insert(2, helper.make_node("Add", ["moved", "minus"], ["h"]))

    return _edited(source, work, swap)


@pytest.mark.parametrize(
    "function", [forgets_the_clip, forgets_the_negative_clip, cuts_off_what_is_faint]
)
def test_without_samples_an_exact_pass_is_tried_where_clips_and_gates_saturate(
    tmp_path, monkeypatch, function
):
    source = model(tmp_path, CLIPPED, weights=WEIGHTS | LIMITS)

    said = broken(function, EXACT, source, tmp_path, monkeypatch)

    assert said.startswith("culprit: output y differs from the original's by"), said


def test_what_rounding_alone_turns_around_is_no_breach(tmp_path, monkeypatch):
    source = model(tmp_path, TIE, weights=WEIGHTS | {"huge": np.float32(1e5)})
    row = PassSpec(
        settings=Clean,
        function=f"{__name__}:rounds_on_the_way",
        summary="rounds otherwise",
        version=1,
        promise=EXACT,
    )
    monkeypatch.setitem(PASSES, "innocent", row)

    made = apply("innocent", source, tmp_path)

    x = normal(1, 6)
    assert not np.allclose(run(made, x=x)[0], run(source, x=x)[0], rtol=1e-3)


# ---------------------------------------------------------------- passes that quantise

BIG = {"w": normal(64, 512), "v": normal(512, 10, seed=1)}
BIG_NET = "g (float[N,64] x) => (float[N,10] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"


def forgets_to_quantise(source, settings, work):
    return _edited(source, work, lambda graph: None)


def stores_integers_as_floats(source, settings, work):
    """Fake quantisation: the values are those of 8 bits, and so is an int8 beside them."""
    rounded = np.round(BIG["w"] * 40).astype(np.float32) / 40

    def edit(graph):
        _with_constants(w=rounded)(graph)
        graph.initializer.append(numpy_helper.from_array(np.ones(4, np.int8), "proof"))

    return _edited(source, work, edit)


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

    return _edited(source, work, edit)


def _quantised(source, work, edit):
    """A right result, spoilt."""
    made = apply("quantize-dynamic", source, work.scratch)
    return _edited(made, work, edit)


def answers_zero(source, settings, work):
    def silence(graph):
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
        graph.node.append(helper.make_node("Mul", ["inner", "zero"], ["y"]))

    return _quantised(source, work, silence)


def answers_upside_down(source, settings, work):
    def negate(graph):
        graph.node[-1].output[0] = "inner"
        graph.node.append(helper.make_node("Neg", ["inner"], ["y"]))

    return _quantised(source, work, negate)


def answers_far_too_loudly(source, settings, work):
    def shout(graph):
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.float32(128), "loud"))
        graph.node.append(helper.make_node("Mul", ["inner", "loud"], ["y"]))

    return _quantised(source, work, shout)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (forgets_to_quantise, "promised int8 weights: found none, but 151552 bytes of float32"),
        (stores_integers_as_floats, "promised fewer float weights: found 151552 bytes of them, "),
        (stores_wide_integers, "promised a file of at most "),
        (answers_zero, "found 0.00 in y on 16 samples"),
        (answers_upside_down, "found -1.00 in y on 16 samples"),
        (answers_far_too_loudly, "output y differs from the original's by 1.3e+02 relative RMS"),
    ],
)
def test_a_pass_that_says_it_quantises_has_to(tmp_path, monkeypatch, function, complaint):
    source = model(tmp_path, BIG_NET, weights=BIG)
    data = samples(tmp_path, x=normal(40, 64))

    said = broken(function, INT8_WEIGHTS, source, tmp_path, monkeypatch, data)

    assert said.startswith("culprit: ")
    assert complaint in said


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_of_two_bits_are_a_poor_result_but_no_broken_promise(tmp_path, bits):
    source = model(tmp_path, BIG_NET, weights=BIG)
    data = samples(tmp_path, x=normal(40, 64))

    made = apply("weights", source, tmp_path, data, bits=bits)

    assert made.bytes < source.bytes / 3


def picks_one_class(source, settings, work):
    def pick(graph):
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.int64(0), "none"))
        graph.node.append(helper.make_node("Mul", ["inner", "none"], ["y"]))

    return _edited(source, work, pick)


def test_a_class_that_is_the_same_on_every_sample_follows_nothing(tmp_path, monkeypatch):
    text = "g (float[N,6] x) => (int64[N] y) { h = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(h) }"
    source = model(tmp_path, text, weights=WEIGHTS)
    data = samples(tmp_path, x=normal(40, 6))

    said = broken(picks_one_class, Promise(), source, tmp_path, monkeypatch, data)

    assert "found y the same on every sample" in said


def test_an_exact_pass_picks_the_classes_that_the_original_picks(tmp_path, monkeypatch):
    text = "g (float[N,6] x) => (int64[N] y) { h = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(h) }"
    source = model(tmp_path, text, weights=WEIGHTS)
    data = samples(tmp_path, x=normal(40, 6))

    said = broken(takes_the_smallest, EXACT, source, tmp_path, monkeypatch, data)

    assert "promised the same integers: found 0 % of them equal" in said


def takes_the_smallest(source, settings, work):
    def turn(graph):
        graph.node[1].input[0] = "turned"
        graph.node.insert(1, helper.make_node("Neg", ["h"], ["turned"]))

    return _edited(source, work, turn)


def test_a_free_dimension_has_to_stay_free(tmp_path, monkeypatch):
    text = "g (float[N,T] x) => (float[N,T] y) { h = Relu(x) y = Add(h, h) }"
    source = model(tmp_path, text)
    data = samples(tmp_path, x=uniform(20, 8))

    said = broken(fixes_eight, EXACT, source, tmp_path, monkeypatch, data)

    assert said.startswith("culprit: the result fails on a sample of half the size")


def fixes_eight(source, settings, work):
    def reshape(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, 8]), "shape"))
        graph.node.append(helper.make_node("Reshape", ["inner", "shape"], ["y"]))

    return _edited(source, work, reshape)


@pytest.mark.parametrize("cleaned", [False, True])
def test_infinities_that_the_original_stores_may_stay(tmp_path, cleaned):
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    text = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) m = Add(h, k) y = Softmax(m) }"
    source = model(tmp_path, text, weights={"w": normal(6, 4), "k": mask})

    start = apply("clean", source, tmp_path) if cleaned else source
    made = apply("quantize-dynamic", start, tmp_path, samples(tmp_path, x=normal(20, 6)))

    assert run(made, x=normal(2, 6))[0][:, 1].tolist() == [0, 0]


def test_as_many_boxes_as_a_result_finds_are_its_own_affair(tmp_path, monkeypatch):
    """Their number follows the data, so a quantised detector may find others."""
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

    return _edited(source, work, positive_only)


def test_peak_memory_is_that_of_one_model(tmp_path):
    """32 MB of weights: two sessions at once, or copies of the file, would show."""
    weights = {"w": normal(2048, 2048), "v": normal(2048, 2048, seed=1)}
    text = "g (float[N,2048] x) => (float[N,2048] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    source = model(tmp_path, text, weights=weights)
    other = _edited(source, work(tmp_path), lambda graph: None)
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


def test_without_calibration_data_static_quantisation_is_refused_and_the_others_run(tmp_path):
    source = model(tmp_path, NET, weights=WEIGHTS)

    with pytest.raises(PassRefused, match="calibration"):
        apply("quantize", source, tmp_path)
    cleaned = apply("clean", source, tmp_path)
    dynamic = apply("quantize-dynamic", cleaned, tmp_path)

    x = uniform(3, 6)
    np.testing.assert_allclose(run(dynamic, x=x)[0], run(source, x=x)[0], atol=0.05)


def test_samples_that_the_model_fails_on_are_the_users_to_mend(tmp_path):
    text = "g (int64[N] i) => (float[N,3] y) { h = Gather(t, i) y = MatMul(h, w) }"
    source = model(tmp_path, text, weights={"t": normal(5, 3), "w": normal(3, 3)})
    data = samples(tmp_path, i=np.array([0, 1, 99]))

    with pytest.raises(UserError, match="the model fails on sample 2"):
        apply("quantize", source, tmp_path, data)


def test_samples_of_another_shape_are_the_users_to_mend(tmp_path):
    source = model(tmp_path, NET, weights=WEIGHTS)

    with pytest.raises(UserError, match=r"input x takes \[N, 6\], the data is \[1, 5\]"):
        apply("quantize", source, tmp_path, samples(tmp_path, x=uniform(4, 5)))


def test_a_tflite_model_is_refused_by_passes_on_onnx(tmp_path):
    from dataclasses import replace

    source = replace(model(tmp_path, NET, weights=WEIGHTS), format="tflite")

    with pytest.raises(PassRefused, match="clean takes onnx, not tflite"):
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


@pytest.mark.parametrize("step", ["quantize", "quantize-dynamic", "weights", "prune", "low-rank"])
def test_an_output_that_is_infinite_in_places_is_refused_with_the_reason(tmp_path, step):
    text = (
        "g (float[N,40,24] x) => (float[N,40,24] y, float[N,40,64] l)"
        " { h = MatMul(x, a) r = Relu(h) l = Log(r) y = MatMul(r, b) }"
    )
    source = model(tmp_path, text, weights={"a": normal(24, 64), "b": normal(64, 24, seed=1)})

    with pytest.raises(PassRefused, match=r"output l of .* as the output is not finite elsewhere"):
        apply(step, source, tmp_path, samples(tmp_path, x=normal(48, 40, 24)))
