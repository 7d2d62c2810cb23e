"""Distillation on handwritten digits: what a user gets, keeps and is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.bundle.packing.slices import estimate_packed_bits
from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.errors import PassRefused
from edgekit.pass_settings import Distil
from tests.builders.tiny import apply, model, run, samples, train_digits_reader, work

pytest.importorskip("tensorflow")

GRAPH = (
    "g (float[N,64] x) => (float[N,10] y) { h = Gemm(x, w0, b0) r = Relu(h) d = Gemm(r, w1, b1) "
    "y = Softmax(d) }"
)


@pytest.fixture(scope="module")
def digits():
    return train_digits_reader(width=64, count=1200)


@pytest.fixture
def teacher(digits, tmp_path):
    return model(tmp_path, GRAPH, weights=digits[2])


@pytest.fixture
def calibration(digits, tmp_path):
    return samples(tmp_path, x=digits[0][:400])


def damage(weights, seed=0, zeros=0.0):
    rng = np.random.default_rng(seed)
    changed = {k: v + 0.6 * v.std() * rng.standard_normal(v.shape) for k, v in weights.items()}
    for key in ("w0", "w1"):
        changed[key] *= rng.random(changed[key].shape) >= zeros
    return {key: value.astype(np.float32) for key, value in changed.items()}


def learn(teacher, student, folder, calibration, *, seed=0, tick=None, resume=None, **settings):
    done = dataclasses.replace(
        work(folder, calibration),
        original=teacher,
        seed=seed,
        resume=resume,
        progress=tick or (lambda *_: None),
    )
    return run_checked(build_step(Distil(**settings)), student, done)


def count_correct(made, digits):
    x, y, _ = digits
    return (run(made, x=x[1200:])[0].argmax(axis=1) == y[1200:]).mean()


def read_weights(made):
    stored = onnx.load(str(made.path)).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}


def test_a_damaged_model_recovers_without_labels_and_zeros_stay(
    digits, teacher, calibration, tmp_path
):
    student = model(tmp_path, GRAPH, weights=damage(digits[2], zeros=0.5))
    made = learn(teacher, student, tmp_path, calibration, steps=400)
    before, after = count_correct(student, digits), count_correct(made.model, digits)
    assert before < 0.75
    assert after > before + 0.15
    old, new = read_weights(student), read_weights(made.model)
    assert (new["w0"][old["w0"] == 0] == 0).all()
    assert not np.array_equal(old["w0"], new["w0"])
    assert any("learned in 400 steps" in note and "agreement" in note for note in made.notes)


@pytest.mark.parametrize("last", [35, 60])
def test_an_interrupted_run_continues_to_the_same_result(
    digits, teacher, calibration, tmp_path, last
):
    student = model(tmp_path, GRAPH, weights=damage(digits[2]))
    whole = learn(teacher, student, tmp_path, calibration, steps=60)

    def interrupt(stage, done, total):
        if stage.startswith("learning") and done == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(
            teacher, student, tmp_path, calibration, steps=60, tick=interrupt,
            resume=tmp_path / "resume",
        )  # fmt: skip
    seen = []
    again = learn(
        teacher, student, tmp_path, calibration, steps=60,
        tick=lambda stage, done, total: seen.append(done) if total == 60 else None,
        resume=tmp_path / "resume",
    )  # fmt: skip
    assert min(seen, default=61) == last + 1
    for name, value in read_weights(whole.model).items():
        np.testing.assert_allclose(read_weights(again.model)[name], value, atol=1e-4)


def test_a_damaged_checkpoint_means_a_new_start(digits, teacher, calibration, tmp_path):
    student = model(tmp_path, GRAPH, weights=damage(digits[2]))
    resume = tmp_path / "resume"
    resume.mkdir()
    (resume / "learning.npz").write_bytes(b"PK\x03\x04 cut")
    seen = []
    learn(
        teacher, student, tmp_path, calibration, steps=30,
        tick=lambda stage, done, total: seen.append(done) if total == 30 else None, resume=resume,
    )  # fmt: skip
    assert min(seen) == 1


def test_weights_of_few_bits_learn_and_stay_as_small(digits, teacher, calibration, tmp_path):
    student = apply(
        "quantize-weights", teacher, tmp_path, calibration, bits=1.3, weight_bits=8,
        allocation="uniform",
    )  # fmt: skip
    made = learn(teacher, student, tmp_path, calibration, steps=400, rate=0.01)
    error_before, error_after = (
        np.square(run(m, x=digits[0][1200:])[0] - run(teacher, x=digits[0][1200:])[0]).mean()
        for m in (student, made.model)
    )
    assert error_after < 0.7 * error_before
    old, new = (
        sum(estimate_packed_bits(v) for v in read_weights(m).values() if v.dtype == np.int8)
        for m in (student, made.model)
    )
    assert old > 0
    assert new <= 1.01 * old
    assert {n.op_type for n in onnx.load(str(made.model.path)).graph.node} == {
        n.op_type for n in onnx.load(str(student.path)).graph.node
    }


def test_a_student_that_cannot_improve_stays_unchanged(teacher, calibration, tmp_path):
    made = learn(teacher, teacher, tmp_path, calibration, steps=20)
    assert made.model.digest == teacher.digest
    assert any("did not help" in note for note in made.notes)


def test_few_samples_are_told(digits, teacher, tmp_path):
    student = model(tmp_path, GRAPH, weights=damage(digits[2]))
    few = samples(tmp_path, x=digits[0][:40])
    made = learn(teacher, student, tmp_path, few, steps=20)
    assert any("samples are few" in note for note in made.notes)


def test_refusals_say_what_is_missing(digits, teacher, calibration, tmp_path):
    with pytest.raises(PassRefused, match="needs the original") as caught:
        learn(None, teacher, tmp_path, calibration)
    assert "edgekit distil" in caught.value.hint
    classes = model(
        tmp_path,
        "g (float[N,64] x) => (int64[N] y) { h = Gemm(x, w0, b0) "
        "y = ArgMax<axis=1, keepdims=0>(h) }",
        weights={k: digits[2][k] for k in ("w0", "b0")},
    )
    with pytest.raises(PassRefused, match="no float output"):
        learn(classes, classes, tmp_path, calibration)


def test_a_student_of_another_architecture_learns(digits, teacher, calibration, tmp_path):
    rng = np.random.default_rng(1)
    weights = {
        "u": rng.normal(0, 0.15, (64, 24)).astype(np.float32),
        "ub": np.zeros(24, np.float32),
        "v": rng.normal(0, 0.2, (24, 10)).astype(np.float32),
        "vb": np.zeros(10, np.float32),
    }
    student = model(
        tmp_path,
        "g (float[N,64] x) => (float[N,10] y) { a = Gemm(x, u, ub) t = Tanh(a) "
        "e = Gemm(t, v, vb) y = Softmax(e) }",
        weights=weights,
    )
    assert count_correct(student, digits) < 0.3
    made = learn(teacher, student, tmp_path, calibration, steps=800)
    assert count_correct(made.model, digits) > 0.8


def test_an_interruption_is_one_where_no_checkpoint_can_be_written(teacher, calibration, tmp_path):
    (tmp_path / "file").touch()

    def press_ctrl_c(stage, done, total):
        if total and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(
            teacher,
            teacher,
            tmp_path,
            calibration,
            tick=press_ctrl_c,
            resume=tmp_path / "file" / "checkpoints",
            steps=20,
            augment=False,
        )
