"""Pairs of models that cannot be compared, or only in part."""

import dataclasses

import numpy as np
import pytest

from edgekit.compression.distillation.output_checks import find_incomparable_outputs
from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.errors import PassRefused
from edgekit.pass_settings import Distil
from tests.builders.tiny import model, normal, run, samples, work

pytest.importorskip("tensorflow")

MATRIX = "g (float[N,6] x) => (float[N,4] y) { y = MatMul(x, w) }"
# The number of rows is that of the boxes that remain.
SELECTION = """g (float[N,6] x) => (float[M,4] kept) {
  y = MatMul(x, w)
  first = Constant<value_ints = [0]>()
  both = Constant<value_ints = [0, 1]>()
  boxes = Unsqueeze(y, first)
  largest = ReduceMax<axes = [1], keepdims = 0>(y)
  scores = Unsqueeze(largest, both)
  most = Constant<value_ints = [8]>()
  limit = Constant<value_floats = [0.0]>()
  found = NonMaxSuppression(boxes, scores, most, limit, limit)
  column = Constant<value_int = 2>()
  rows = Gather<axis = 1>(found, column)
  kept = Gather(y, rows)
}"""
W = normal(6, 4)


def learn(teacher, student, folder, x):
    done = dataclasses.replace(work(folder, samples(folder, x=x)), original=teacher)
    return run_checked(build_step(Distil(steps=300, augment=False)), student, done)


def test_double_precision_learns(tmp_path):
    text = MATRIX.replace("float", "double")
    wide = W.astype(np.float64)
    teacher = model(tmp_path, text, weights={"w": wide})
    student = model(tmp_path, text, weights={"w": wide + 0.2 * normal(6, 4, seed=1)})
    x = normal(300, 6).astype(np.float64)
    made = learn(teacher, student, tmp_path, x)
    before, after = (
        np.abs(run(each, x=x)[0] - run(teacher, x=x)[0]).mean() for each in (student, made.model)
    )
    assert after < 0.8 * before


def test_a_model_whose_only_output_depends_in_size_on_the_values_is_refused(tmp_path):
    teacher, student = (model(tmp_path, SELECTION, weights={"w": w}) for w in (W, -W))
    with pytest.raises(PassRefused, match="no float output of fixed size"):
        learn(teacher, student, tmp_path, normal(300, 6))


def test_beside_others_an_output_of_another_size_is_left_out():
    y = normal(8, 4)
    wanted, given = {"y": y, "kept": y[:3]}, {"y": -y, "kept": y[:2]}
    assert find_incomparable_outputs(["y", "kept"], [wanted, wanted], [wanted, given]) == ["kept"]


@pytest.mark.parametrize("who", ["original model", "student"])
def test_values_that_are_not_finite_are_refused(tmp_path, who):
    broken = W.copy()
    broken[0] = np.nan
    weights = {"original model": W, "student": W} | {who: broken}
    models = [model(tmp_path, MATRIX, weights={"w": w}) for w in weights.values()]
    with pytest.raises(PassRefused, match=f"the {who} computes no finite value of output y"):
        learn(*models, tmp_path, normal(300, 6))


def test_a_student_without_weights_is_refused(tmp_path):
    text = "g (float[N,6] x) => (float[N,6] y) { h = Relu(x) y = Neg(h) }"
    with pytest.raises(PassRefused, match="no weights that can learn"):
        learn(model(tmp_path, text), model(tmp_path, text), tmp_path, normal(300, 6))


def test_too_few_samples_for_a_fixed_batch_say_how_many_are_needed(tmp_path):
    text = MATRIX.replace("N", "4")
    teacher, student = (model(tmp_path, text, weights={"w": w}) for w in (W, W + 0.1))
    with pytest.raises(PassRefused) as caught:
        learn(teacher, student, tmp_path, normal(3, 6))
    assert "at least 4" in caught.value.hint
