"""The runner checks the promises of a pass and names the pass that breaks one."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.compression.pass_specs import PASSES, PassSpec, Work
from edgekit.compression.step_runner import run_checked
from edgekit.errors import PassRefused
from edgekit.pass_settings import Clean
from edgekit.recipe import Step
from tests.builders.broken_passes import (
    EXACT,
    NET,
    WEIGHTS,
    replace_constants,
    run_broken_pass,
    write_edited,
)
from tests.builders.tiny import apply, model, normal, run, samples, uniform


def returns_its_input(source, settings, work):
    return source.path


def returns_rubbish(source, settings, work):
    path = work.scratch / "rubbish.onnx"
    path.write_bytes(b"rubbish")
    return path


def renames_the_output(source, settings, work):
    def rename(graph):
        graph.node[1].output[0] = graph.output[0].name = "renamed"

    return write_edited(source, work, rename)


def changes_the_type(source, settings, work):
    def cast(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("Cast", ["inner"], ["y"], to=TensorProto.DOUBLE))
        graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    return write_edited(source, work, cast)


def adds_an_axis(source, settings, work):
    def wrap(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        graph.node.append(helper.make_node("Unsqueeze", ["inner", "axes"], ["y"]))
        graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1

    return write_edited(source, work, wrap)


def changes_the_shape(source, settings, work):
    def sum_up(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("ReduceSum", ["inner"], ["y"], keepdims=0))
        graph.output[0].type.tensor_type.shape.ClearField("dim")

    return write_edited(source, work, sum_up)


def fixes_the_batch_inside(source, settings, work):
    def reshape(graph):
        graph.node[1].output[0] = "inner"
        graph.initializer.append(numpy_helper.from_array(np.array([1, 4]), "shape"))
        graph.node.append(helper.make_node("Reshape", ["inner", "shape"], ["y"]))

    return write_edited(source, work, reshape)


def divides_by_zero(source, settings, work):
    def divide(graph):
        graph.node[1].output[0] = "inner"
        graph.node.append(helper.make_node("Sub", ["inner", "inner"], ["zero"]))
        graph.node.append(helper.make_node("Div", ["inner", "zero"], ["y"]))

    return write_edited(source, work, divide)


def stores_a_nan(source, settings, work):
    return write_edited(source, work, replace_constants(w=np.full((6, 4), np.nan, np.float32)))


def stores_an_infinity(source, settings, work):
    return write_edited(source, work, replace_constants(w=np.full((6, 4), np.inf, np.float32)))


def adds_a_little(source, settings, work):
    return write_edited(source, work, replace_constants(w=1.01 * WEIGHTS["w"]))


def carries_ballast(source, settings, work):
    def load(graph):
        graph.initializer.append(numpy_helper.from_array(normal(100, 100), "ballast"))

    return write_edited(source, work, load)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (returns_its_input, "the output file is identical to the input"),
        (returns_rubbish, "the result does not load"),
        (renames_the_output, "changed the names or types of the outputs: found renamed float32"),
        (changes_the_type, "changed the names or types of the outputs: found y float64 [N, 4]"),
        (adds_an_axis, "changed the shapes of the outputs: found y float32 [N, 4, 1]"),
        (changes_the_shape, "output y of sample 0 is [], was [1, 4]"),
        (fixes_the_batch_inside, "the compressed model fails on 3 samples at once"),
        (divides_by_zero, "output y of sample 0 is not finite, but the original's is"),
        (stores_a_nan, "the stored tensor w contains NaN, and none did before"),
        (stores_an_infinity, "the stored tensor w contains infinity, and none did before"),
        (adds_a_little, "output y differs from the original's by 0.01 (relative RMS), more than"),
        (carries_ballast, "wrote a file of 40236 bytes, more than the limit of 5324; before 204"),
    ],
)
def test_a_result_that_breaks_a_promise_is_the_fault_of_the_pass_that_made_it(
    tmp_path, monkeypatch, function, complaint
):
    source = model(tmp_path, NET, weights=WEIGHTS)
    data = samples(tmp_path, x=np.abs(uniform(6, 6)))

    said = run_broken_pass(function, EXACT, source, tmp_path, monkeypatch, data)

    assert said.startswith(f"culprit: {complaint}"), said


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (returns_its_input, "the output file is identical to the input"),
        (divides_by_zero, "output y of random inputs is not finite"),
        (fixes_the_batch_inside, "the compressed model fails on random inputs"),
        (changes_the_shape, "output y of random inputs is []"),
        (adds_a_little, "output y differs from the original's by 0.01"),
    ],
)
def test_without_samples_the_promises_are_checked_on_random_inputs(
    tmp_path, monkeypatch, function, complaint
):
    source = model(tmp_path, NET, weights=WEIGHTS)

    assert complaint in run_broken_pass(function, EXACT, source, tmp_path, monkeypatch)


CLIPPED = """g (float[N,6] x) => (float[N,4] y) {
  h = MatMul(x, w) c = Clip(h, low, high) y = Identity(c) }"""


TIE = """g (float[N,6] x) => (float[N,4] y) {
  h = MatMul(x, w) p = Mul(h, huge) c = Cos(p) y = Identity(c) }"""


LIMITS = {"low": np.float32(-50), "high": np.float32(50)}


def forgets_the_clip(source, settings, work):
    """Drop a clip that matters only beyond 50, which unit noise does not reach."""
    return write_edited(source, work, replace_constants(low=np.float32(-1e9), high=np.float32(1e9)))


def forgets_the_negative_clip(source, settings, work):
    return write_edited(source, work, replace_constants(low=np.float32(-1e9)))


def cuts_off_what_is_faint(source, settings, work):
    def shrink(graph):
        graph.node[1].op_type, graph.node[1].input[:] = "Shrink", ["h"]
        graph.node[1].attribute.append(helper.make_attribute("lambd", 1e-3))

    return write_edited(source, work, shrink)


def rounds_on_the_way(source, settings, work):
    def swap(graph):
        graph.node[0].output[0] = "whole"
        graph.initializer.append(numpy_helper.from_array(np.float32(9), "nine"))
        graph.initializer.append(numpy_helper.from_array(np.float32(-9), "minus"))
        graph.node.insert(1, helper.make_node("Add", ["whole", "nine"], ["moved"]))
        graph.node.insert(2, helper.make_node("Add", ["moved", "minus"], ["h"]))

    return write_edited(source, work, swap)


@pytest.mark.parametrize(
    "function", [forgets_the_clip, forgets_the_negative_clip, cuts_off_what_is_faint]
)
def test_without_samples_an_exact_pass_is_checked_where_clips_and_gates_saturate(
    tmp_path, monkeypatch, function
):
    source = model(tmp_path, CLIPPED, weights=WEIGHTS | LIMITS)

    said = run_broken_pass(function, EXACT, source, tmp_path, monkeypatch)

    assert said.startswith("culprit: output y differs from the original's by"), said


def test_differences_by_rounding_alone_break_no_promise(tmp_path, monkeypatch):
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


def copies_the_original(source, settings, work):
    shutil.copyfile(work.original.path, work.scratch / "copy.onnx")
    return work.scratch / "copy.onnx"


def test_a_pass_that_reads_the_original_is_compared_with_it_and_refused_without(
    tmp_path, monkeypatch
):
    original = model(tmp_path, TIE, weights=WEIGHTS | {"huge": np.float32(1.0)})
    changed = model(tmp_path, TIE, weights=WEIGHTS | {"huge": np.float32(1e3)})
    row = PassSpec(
        settings=Clean,
        function=f"{__name__}:copies_the_original",
        summary="copies",
        version=1,
        needs_original=True,
        promise=EXACT,
    )
    monkeypatch.setitem(PASSES, "restore", row)
    work = Work(scratch=tmp_path, calibration=None, progress=lambda *_: None)
    step = Step(name="restore", version=1, settings=Clean())

    made = run_checked(step, changed, replace(work, original=original))
    with pytest.raises(PassRefused, match="needs the original model"):
        run_checked(step, changed, work)

    assert made.model.digest == original.digest
    assert made.agreement.worst[1] == 0
