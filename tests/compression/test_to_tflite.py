"""Conversion to .tflite: the same outputs and signature, and errors that name the cause."""

from __future__ import annotations

import re
from dataclasses import replace

import flatbuffers
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from ai_edge_litert import schema_py_generated as schema

from edgekit.compression.pass_specs import CONVERSION, PASSES, PassSpec, build_step
from edgekit.compression.step_runner import run_checked
from edgekit.compression.to_tflite import to_tflite
from edgekit.conversion.open_model import read_model
from edgekit.data.input_settings import Feeding
from edgekit.errors import PassError, PassRefused
from edgekit.onnx_graph.runs.model_outputs import iter_outputs
from edgekit.pass_settings import ToTflite
from edgekit.tflite.weight_stats import count_tflite_ops, read_tflite_storage_stats
from tests.builders.if_branches import model_by_rate
from tests.builders.tiny import apply, model, normal, run, samples, uniform, work, write

NET = (
    "g (float[N,3,8,8] x) => (float[N,10] y) { c = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(c) "
    "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v, k) }"
)
WEIGHTS = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(4, 10), "k": normal(10)}
TEXT = (
    "g (int64[N,L] z, float[N,L] a) => (float[N,L,4] y, float[N,4] b) "
    "{ e = Gather(table, z) u = Unsqueeze(a, two) y = Mul(e, u) b = ReduceMean<axes = [1], "
    "keepdims = 0>(y) }"
)
TABLE = {"table": normal(9, 4), "two": np.array([2])}


def answers(made, **feed):
    (given,) = iter_outputs(made, [feed])
    assert not isinstance(given, str), given
    return given


def test_a_float_graph_gives_the_same_answers_and_says_how_close(tmp_path):
    source, x = model(tmp_path, NET, weights=WEIGHTS), uniform(24, 3, 8, 8)
    found = run_checked(build_step(ToTflite()), source, work(tmp_path, samples(tmp_path, x=x)))

    assert found.agreement.samples == 16
    assert found.agreement.worst[1] < 1e-5
    assert found.model.format == "tflite"
    np.testing.assert_allclose(
        answers(found.model, x=x[:1])["y"], run(source, x=x[:1])[0], rtol=1e-4, atol=1e-5
    )


def test_names_order_and_types_stay_and_sizes_are_those_that_were_given(tmp_path):
    source = model(tmp_path, TEXT, weights=TABLE)
    made = apply("to-tflite", source, tmp_path, dims=(("L", 5),))

    assert [str(t) for t in made.signature.inputs] == ["z int64 [1, 5]", "a float32 [1, 5]"]
    assert [str(t) for t in made.signature.outputs] == ["y float32 [1, 5, 4]", "b float32 [1, 4]"]
    z, a = np.array([[0, 8, 3, 3, 1]]), uniform(1, 5)
    for name, expected in zip("yb", run(source, z=z, a=a), strict=True):
        np.testing.assert_allclose(answers(made, z=z, a=a)[name], expected, rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs_come_back_in_their_order(tmp_path):
    source = model(tmp_path, TEXT, weights=TABLE)  # in no order of the alphabet
    there = apply("to-tflite", source, tmp_path, dims=(("L", 5),))
    back = apply("to-onnx", there, tmp_path)
    for side in ("inputs", "outputs"):
        given, made = getattr(source.signature, side), getattr(back.signature, side)
        assert [(t.name, t.dtype) for t in made] == [(t.name, t.dtype) for t in given]


def test_outputs_that_are_equal_keep_their_order(tmp_path):
    text = "g (float[2,3] x) => (float[2,3] b, float[2,3] a) { b = Relu(x) a = Reshape(b, shape) }"
    made = apply("to-tflite", model(tmp_path, text, weights={"shape": np.array([2, 3])}), tmp_path)
    assert [t.name for t in made.signature.outputs] == ["b", "a"]


def test_a_free_dimension_that_nobody_gave_a_size_is_refused_by_name(tmp_path):
    with pytest.raises(
        PassRefused, match="neither the samples nor --dims give L one size"
    ) as caught:
        apply("to-tflite", model(tmp_path, TEXT, weights=TABLE), tmp_path)
    assert "--dims L=SIZE" in caught.value.hint


def test_a_free_dimension_without_a_name_is_called_after_its_place(tmp_path):
    source = model(tmp_path, "g (float[N,?] x) => (y) { y = Relu(x) }".replace("?", "K"))
    proto = onnx.load(str(source.path))
    proto.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_param")
    unnamed = write(tmp_path, proto)

    made = apply("to-tflite", unnamed, tmp_path, dims=(("x.1", 7),))

    assert made.signature.inputs[0].shape == (1, 7)


def test_the_int8_of_quantize_static_runs_in_integer_kernels_with_close_outputs(tmp_path):
    source, data = model(tmp_path, NET, weights=WEIGHTS), uniform(64, 3, 8, 8)
    calibration = samples(tmp_path, x=data)
    int8 = apply("quantize-static", source, tmp_path, calibration)
    made = run_checked(build_step(ToTflite()), int8, work(tmp_path, calibration))

    stored = read_tflite_storage_stats(made.model.path)
    assert stored.weight_bytes == 0, "no float weights"
    assert stored.bytes_of["int8"] >= 4 * 27 + 40
    assert count_tflite_ops(made.model.path)["DEQUANTIZE"] <= 2, (
        "of the answer and of the last weights"
    )
    assert made.agreement.worst[1] < 0.02


@pytest.mark.parametrize("precision", ["dynamic", "float16"])
def test_weights_too_small_for_fewer_bits_are_a_reason_and_no_broken_promise(tmp_path, precision):
    text = "g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }"
    source = model(tmp_path, text, weights={"w": normal(4, 3)})
    with pytest.raises(PassRefused, match=f"{precision}: no .*weights"):
        run_checked(build_step(ToTflite(precision=precision)), source, work(tmp_path))


def with_a_word(path):
    """The file with a tensor that holds text, which nothing reads."""
    whole = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(b"\1\0\0\0\x0c\0\0\0\x0d\0\0\0a", np.uint8)
    whole.buffers.append(buffer)
    tensor.name, tensor.type = b"words", schema.TensorType.STRING
    tensor.shape, tensor.buffer = np.int32([1]), len(whole.buffers) - 1
    whole.subgraphs[0].tensors.append(tensor)
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return read_model(path)


def test_a_file_that_litert_loads_and_edgekit_cannot_read_is_refused_with_the_reason(tmp_path):
    made = apply("to-tflite", model(tmp_path, NET, weights=WEIGHTS), tmp_path)
    with pytest.raises(PassRefused, match="tensor words"):
        apply("to-onnx", with_a_word(made.path), tmp_path)


def emits_another_model(source, settings, work):
    proto = onnx.load(str(source.path))
    for tensor in proto.graph.initializer:
        if tensor.name == "v":
            tensor.CopyFrom(numpy_helper.from_array(1.01 * WEIGHTS["v"], "v"))
    return to_tflite(write(work.scratch, proto), settings, work)


def test_a_file_with_other_outputs_breaks_a_promise_that_names_the_output(tmp_path, monkeypatch):
    row = PassSpec(
        settings=ToTflite,
        function=f"{__name__}:emits_another_model",
        summary="makes a file of another model",
        version=1,
        promise=CONVERSION,
    )
    monkeypatch.setitem(PASSES, "culprit", row)
    source, data = model(tmp_path, NET, weights=WEIGHTS), samples(tmp_path, x=uniform(24, 3, 8, 8))

    with pytest.raises(PassError, match=r"culprit: output y differs .* by 0\.0"):
        apply("culprit", source, tmp_path, data)


def test_the_same_input_gives_the_same_file(tmp_path):
    source = model(tmp_path, NET, weights=WEIGHTS)

    assert (
        apply("to-tflite", source, tmp_path).digest == apply("to-tflite", source, tmp_path).digest
    )


CLIPPED = (
    "g (float[N,6,5] x) => (float[6,1,N,4] y) "
    "{ t = Transpose<perm = [1,0,2]>(x) y = LSTM<hidden_size = 4, clip = 30.0, "
    'activations = ["Sigmoid", "Relu", "Relu"]>(t, w, r) }'
)


def test_without_samples_a_wrong_number_beyond_the_usual_range_is_found(tmp_path, monkeypatch):
    weights = {"w": normal(1, 16, 5), "r": normal(1, 16, 4)}
    source = model(tmp_path, CLIPPED, weights=weights)
    apply("to-tflite", source, tmp_path)
    monkeypatch.setattr("edgekit.conversion.onnx_to_tflite.ops.gates._clip_input", _wrongly_clipped)

    with pytest.raises(PassError, match="output y differs from the original"):
        apply("to-tflite", source, tmp_path)


def _wrongly_clipped(low, tensor, *, bound, after):
    """Clip at half the bound."""
    limits = (("MAXIMUM", -bound / 2), ("MINIMUM", bound / 2))
    for kind, limit in limits:
        tensor = low.emit(kind, [tensor, low.float32(limit)], tensor.shape)
    return after(low, tensor)


FRAMED = (
    "g (float[N,L] x, float[2,N,4] s) => (float[N,K] y, float[2,N,4] t) "
    '{ y = Pad<mode = "reflect">(x, pads) t = Add(s, s) }'
)


def test_an_axis_named_as_the_batch_is_one_sample_wherever_it_lies(tmp_path):
    source = model(tmp_path, FRAMED, weights={"pads": np.array([0, 3, 0, 3])})
    made = apply("to-tflite", source, tmp_path, dims=(("L", 8),))

    assert [spec.shape for spec in made.signature.inputs] == [(1, 8), (2, 1, 4)]


def test_sizes_that_the_model_rejects_are_a_user_error(tmp_path):
    framed = (
        "g (float[N,L,5] x) => (float[A,B,C,D] y) "
        "{ f = Reshape(x, shape) y = LSTM<hidden_size = 4>(f, w, r) }"
    )
    weights = {"shape": np.array([7, 1, 5]), "w": normal(1, 16, 5), "r": normal(1, 16, 4)}
    source = model(tmp_path, framed, weights=weights)
    apply("to-tflite", source, tmp_path, dims=(("L", 7),))

    with pytest.raises(PassRefused, match=r"fails on inputs of these sizes \(x \[1, 6, 5\]\)"):
        apply("to-tflite", source, tmp_path, dims=(("L", 6),))


def test_a_larger_file_is_noted_with_its_content(tmp_path):
    """A table that the graph computes at load is stored."""
    computed = (
        "g (float[N,64,64] x) => (float[N,64,64] y) "
        "{ r = Range(first, end, one) t = Reshape(r, shape) y = Mul(x, t) }"
    )
    weights = {"first": np.float32(0), "end": np.float32(4096), "one": np.float32(1)}
    source = model(tmp_path, computed, weights=weights | {"shape": np.array([64, 64])})
    found = run_checked(build_step(ToTflite()), source, work(tmp_path))

    told = found.notes[0]
    assert "times as large as its source: it stores 16,384 bytes of float32 instead of" in told


def test_a_file_that_is_larger_because_of_its_graph_is_noted(tmp_path):
    text = (
        "g (float[12,1,8] x) => (float[1,24] y)"
        " { s, last = LSTM<hidden_size = 24>(x, w, r) y = Squeeze(last, axis) }"
    )
    weights = {"w": normal(1, 96, 8), "r": normal(1, 96, 24), "axis": [0]}
    source = model(tmp_path, text, weights=weights)
    small = apply("quantize-dynamic", source, tmp_path, samples(tmp_path, x=normal(12, 1, 8)))
    found = run_checked(build_step(ToTflite()), small, work(tmp_path))

    told = next(note for note in found.notes if "times as large" in note)
    assert re.search(r"its graph takes [\d,]+ bytes instead of [\d,]+, with \d+ operators", told)


@pytest.mark.parametrize(
    ("ratio", "told"), [(2.0, "2.00 times as long"), (1.1, "1.10 times as long"), (1.05, "")]
)
def test_a_slower_file_is_noted_with_its_time(tmp_path, monkeypatch, ratio, told):
    monkeypatch.setattr("edgekit.compression.checks.timing.measure_time_ratio", lambda *_: ratio)
    monkeypatch.setattr("edgekit.compression.checks.conversion_growth._LEAST_EXTRA", 0.0)
    found = run_checked(
        build_step(ToTflite()), model(tmp_path, NET, weights=WEIGHTS), work(tmp_path)
    )

    assert told in " ".join(found.notes)
    assert bool(told) == bool(found.notes)


@pytest.mark.parametrize(("seconds", "told"), [(5e-5, True), (5e-6, False)])
def test_small_models_are_timed_beyond_the_overhead_of_a_call(tmp_path, monkeypatch, seconds, told):
    monkeypatch.setattr("edgekit.compression.checks.timing.measure_time_ratio", lambda *_: 2.0)
    monkeypatch.setattr(
        "edgekit.compression.checks.conversion_growth.measure_thread_seconds", lambda *_: seconds
    )
    found = run_checked(
        build_step(ToTflite()), model(tmp_path, NET, weights=WEIGHTS), work(tmp_path)
    )

    assert ("2.00 times as long" in " ".join(found.notes)) == told


def test_a_file_as_small_as_its_source_gets_no_note(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.compression.checks.timing.measure_time_ratio", lambda *_: 1.0)
    found = run_checked(
        build_step(ToTflite()), model(tmp_path, NET, weights=WEIGHTS), work(tmp_path)
    )

    assert found.notes == ()


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_constant_input_decides_the_branch_and_stays_in_the_signature(tmp_path, rate):
    source, x = write(tmp_path, model_by_rate()), uniform(1, 4)
    constant = np.array(rate)
    own = replace(work(tmp_path), feeding=Feeding(constants={"sr": constant}))
    found = run_checked(build_step(ToTflite()), source, own)

    assert [str(t) for t in found.model.signature.inputs] == ["x float32 [1, 4]", "sr int64 []"]
    np.testing.assert_allclose(
        answers(found.model, x=x, sr=constant)["y"], run(source, x=x, sr=constant)[0], rtol=1e-5
    )
    assert (
        f"input sr is fixed to {rate} (from edgekit.toml); the file ignores other values"
    ) in found.notes


def test_a_branch_that_depends_on_the_input_data_is_refused(tmp_path):
    with pytest.raises(
        PassRefused, match="has a condition that depends on the input data"
    ) as refused:
        apply("to-tflite", write(tmp_path, model_by_rate()), tmp_path)
    assert refused.value.hint == (
        "if sr is the same in every run, set it in edgekit.toml: "
        '[model.inputs."sr"] constant = VALUE; otherwise run this model with onnxruntime'
    )


@pytest.mark.parametrize("count", [8, 400])
def test_constants_are_suggested_only_where_small_inputs_decide_the_branch(tmp_path, count):
    source = model(
        tmp_path,
        f"g (float[1,4] x, float[{count}] a, bool b) => (float[1,4] y) {{"
        " m = ReduceMean<keepdims=0>(a) z = Constant<value = float {0.0}>() p = Greater(m, z)"
        " c = And(p, b) y = If(c) <then_branch = t () => (float[1,4] t_y) { t_y = Relu(x) },"
        " else_branch = e () => (float[1,4] e_y) { e_y = Tanh(x) }> }",
    )
    with pytest.raises(PassRefused, match="has a condition") as refused:
        apply("to-tflite", source, tmp_path)
    assert ("if a, b are the same in every run" in refused.value.hint) == (count == 8)


def test_a_constant_input_of_a_graph_that_needs_no_folding_is_still_read(tmp_path):
    source = model(tmp_path, "g (float[N,4] x, float k) => (float[N,4] y) { y = Mul(x, k) }")
    own = replace(work(tmp_path), feeding=Feeding(constants={"k": np.float32(2)}))
    found = run_checked(build_step(ToTflite()), source, own)

    x = uniform(1, 4)
    np.testing.assert_allclose(answers(found.model, x=x, k=np.float32(3))["y"], 3 * x, rtol=1e-6)
    assert not [note for note in found.notes if "is fixed to" in note]
