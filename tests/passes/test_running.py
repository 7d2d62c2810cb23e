"""What a pass promises is held against what it returns, and the blame has a name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import PassError, PassRefused, UserError
from edgekit.passes import PASSES, PassSpec, step
from edgekit.recipe import Clean, QuantizeDynamic, QuantizeStatic
from tests.tiny import apply, model, normal, run, samples, uniform

NET = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = Relu(h) }"
WEIGHTS = {"w": normal(6, 4)}


def _edited(source, work, edit):
    proto = onnx.load(str(source.path))
    edit(proto.graph)
    proto.graph.doc_string = "edited"
    path = work.scratch / "edited.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


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


def changes_the_shape(source, settings, work):
    def sum_up(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("ReduceSum", ["inner"], ["y"], keepdims=0))
        graph.output[0].type.tensor_type.shape.ClearField("dim")

    return _edited(source, work, sum_up)


def divides_by_zero(source, settings, work):
    def divide(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("Sub", ["inner", "inner"], ["zero"]))
        graph.node.append(helper.make_node("Div", ["inner", "zero"], ["y"]))

    return _edited(source, work, divide)


def adds_a_little(source, settings, work):
    def scale(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(helper.make_tensor("k", TensorProto.FLOAT, [], [1.01]))
        graph.node.append(helper.make_node("Mul", ["inner", "k"], ["y"]))

    return _edited(source, work, scale)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (returns_its_input, "unchanged"),
        (returns_rubbish, "does not load"),
        (renames_the_output, "inputs or outputs"),
        (changes_the_type, "inputs or outputs"),
        (changes_the_shape, "output y is"),
        (divides_by_zero, "not finite"),
        (adds_a_little, "differ from the original by"),
    ],
)
def test_a_result_that_breaks_a_promise_is_the_fault_of_the_pass_that_made_it(
    tmp_path, monkeypatch, function, complaint
):
    row = PassSpec(
        settings=Clean,
        function=f"{__name__}:{function.__name__}",
        summary="breaks a promise",
        version=1,
        max_relative_error=1e-3,
    )
    monkeypatch.setitem(PASSES, "culprit", row)
    source = model(tmp_path, NET, weights=WEIGHTS)

    with pytest.raises(PassError, match=rf"^culprit: .*{complaint}"):
        apply("culprit", source, tmp_path, samples(tmp_path, x=np.abs(uniform(6, 6))))


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
    made = step(settings)

    assert PASSES[made.name].settings is type(settings)
    assert made.version == PASSES[made.name].version
