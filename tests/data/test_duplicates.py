"""Evaluation samples that are calibration samples too."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.dataset import open_dataset
from edgekit.data.duplicates import compare_splits
from edgekit.data.input_settings import Feeding, RecurrentState
from edgekit.model import Signature, TensorSpec

RNG = np.random.default_rng(3)
A = RNG.normal(size=(50, 6)).astype(np.float32)
B = RNG.normal(size=(30, 6)).astype(np.float32)


@pytest.fixture
def compared(tmp_path):
    def save_and_count(calibration, evaluation, *, state=False):
        names = sorted({name for name in calibration if name != "sequence"})
        specs = [
            TensorSpec(name=n, dtype="float32", shape=("N", *calibration[n].shape[1:]))
            for n in names
        ]
        feeding = None
        outputs = ()
        if state:
            specs.append(TensorSpec(name="state", dtype="float32", shape=("N", 2)))
            outputs = (TensorSpec(name="next", dtype="float32", shape=("N", 2)),)
            initial = np.zeros(2, np.float32)
            feeding = Feeding(states={"state": RecurrentState(output="next", initial=initial)})
        splits = []
        for name, arrays in (("calib.npz", calibration), ("eval.npz", evaluation)):
            np.savez(tmp_path / name, **arrays)
            splits.append(
                open_dataset(
                    name,
                    Signature(inputs=tuple(specs), outputs=outputs),
                    folder=tmp_path,
                    cache=tmp_path / "cache",
                    feeding=feeding,
                    targets="none",
                )
            )
        return compare_splits(*splits)

    return save_and_count


@pytest.fixture
def count(compared):
    return lambda *splits, **options: compared(*splits, **options).shared


@pytest.mark.parametrize("shared", [0, 1, 7, 30])
def test_samples_of_both_splits_are_counted_wherever_they_stand(count, shared):
    evaluation = B.copy()
    places = RNG.permutation(30)[:shared]
    evaluation[places] = A[RNG.permutation(50)[:shared]]

    assert count({"x": A}, {"x": evaluation}) == shared


def test_a_sample_that_the_evaluation_repeats_counts_each_time(count):
    assert count({"x": A}, {"x": np.concatenate([A[:1]] * 3 + [B])}) == 3


def test_all_inputs_must_be_the_same(count):
    shuffled = np.roll(A, 1, axis=0)

    assert count({"a": A, "b": A}, {"a": A, "b": shuffled}) == 0
    assert count({"a": A, "b": A}, {"a": A, "b": A}) == 50


def test_values_count_not_the_type_that_they_are_stored_in(count):
    pixels = RNG.integers(0, 256, (40, 6), np.uint8)

    assert count({"x": pixels}, {"x": pixels[::2].astype(np.float32)}) == 20


def test_sequences_are_compared_as_a_whole(count):
    # The same steps in another order are another sequence.
    x = np.repeat(np.eye(4, dtype=np.float32), 6, axis=0)
    sequence = np.repeat([0, 1, 2, 3], 6)
    mixed = np.concatenate([x[:6], x[[6, 12] * 3], x[[12, 6] * 3]])
    arrays = {"x": x, "sequence": sequence}
    other = {"x": mixed, "sequence": np.repeat([9, 7, 5], 6)}

    assert count(arrays, other, state=True) == 6
    assert count(arrays, other) == 18
    assert count(arrays, {"x": mixed}, state=True) == 0
    assert count({"x": x}, {"x": x}, state=True) == 24


def test_many_samples_take_seconds(count):
    x = RNG.integers(0, 256, (20_000, 32, 32), np.uint8)

    assert count({"x": x[:500]}, {"x": x}) == 500


def test_samples_that_never_repeat_are_expected_in_one_split_alone(compared):
    assert compared({"x": A}, {"x": B}).expected == 0


@pytest.mark.parametrize(
    ("answers", "calibration", "evaluation"),
    [(4, 200, 200), (8, 300, 1000), (12, 1000, 300), (12, 3000, 1000)],
)
def test_of_few_distinct_rows_as_many_are_expected_as_independent_splits_share(
    compared, answers, calibration, evaluation
):
    rng = np.random.default_rng(5)
    shares = rng.uniform(0.2, 0.8, answers)
    one, two = (
        (rng.random((rows, answers)) < shares).astype(np.float32)
        for rows in (calibration, evaluation)
    )

    found = compared({"x": one}, {"x": two})

    assert found.shared > 0.1 * evaluation
    assert found.expected == pytest.approx(found.shared, rel=0.3)


def test_a_split_that_repeats_its_samples_does_not_explain_that_all_are_in_the_other(compared):
    rows = np.random.default_rng(6).normal(size=(300, 4)).astype(np.float32)

    found = compared({"x": rows}, {"x": np.concatenate([rows, rows])})

    assert found.shared == 600
    assert found.expected < 300
