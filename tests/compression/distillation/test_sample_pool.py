"""Samples on disk, from which batches are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.distillation.sample_pool import SamplePool
from edgekit.errors import PassRefused
from tests.builders.tiny import proto, samples

FREE = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"
FIXED = "g (float[4,3] x) => (float[4,3] y) { y = Relu(x) }"
ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)


def open_pool(text, folder, rows=ROWS, most=100):
    files = folder / "files"
    files.mkdir()
    return SamplePool(proto(text), [samples(folder, x=rows)], files, most=most)


def list_first(runs):
    return [float(row[0]) for run in runs for row in run["x"]]


def test_a_batch_holds_different_samples_and_the_seed_decides_which(tmp_path):
    pool = open_pool(FREE, tmp_path)
    (run,) = pool.draw(8, np.random.default_rng(1))
    assert run["x"].shape == (8, 3)
    assert len(set(list_first([run]))) == 8
    assert set(list_first([run])) <= set(ROWS[:, 0].tolist())
    (again,) = pool.draw(8, np.random.default_rng(1))
    np.testing.assert_array_equal(run["x"], again["x"])


def test_a_batch_larger_than_the_pool_repeats_samples(tmp_path):
    (run,) = open_pool(FREE, tmp_path).draw(50, np.random.default_rng(0))
    assert run["x"].shape == (50, 3)


def test_a_fixed_batch_is_drawn_in_runs_of_its_size(tmp_path):
    pool = open_pool(FIXED, tmp_path, rows=ROWS[:18])
    runs = pool.draw(6, np.random.default_rng(0))
    assert [run["x"].shape for run in runs] == [(4, 3), (4, 3)]
    assert list_first(pool.read_all()) == ROWS[:16, 0].tolist()


def test_samples_that_are_taken_out_are_drawn_no_more(tmp_path):
    pool = open_pool(FREE, tmp_path)
    taken = list_first(pool.split(5))
    assert len(taken) == 5
    assert pool.count == 15
    assert set(list_first(pool.read_all())) == set(ROWS[:, 0].tolist()) - set(taken)


def test_no_more_than_the_wanted_samples_are_read(tmp_path):
    assert list_first(open_pool(FREE, tmp_path, most=7).read_all()) == ROWS[:7, 0].tolist()


def test_fewer_samples_than_a_batch_are_refused(tmp_path):
    with pytest.raises(PassRefused, match="too few samples") as caught:
        open_pool(FIXED, tmp_path, rows=ROWS[:3])
    assert "at least 4" in caught.value.hint
