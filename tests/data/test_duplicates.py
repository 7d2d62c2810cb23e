"""Evaluation samples that are calibration samples too."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.dataset import open_dataset
from edgekit.data.duplicates import count_shared
from edgekit.data.input_settings import Feeding, RecurrentState
from edgekit.model import Signature, TensorSpec

RNG = np.random.default_rng(3)
A = RNG.normal(size=(50, 6)).astype(np.float32)
B = RNG.normal(size=(30, 6)).astype(np.float32)


@pytest.fixture
def count(tmp_path):
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
        return count_shared(*splits)

    return save_and_count


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
