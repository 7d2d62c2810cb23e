"""A result that is slower than its source gets a note; a faster one does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.compression.pass_specs import PASSES, Promise, build_step
from edgekit.pass_settings import Clean
from edgekit.pipeline.apply import apply
from edgekit.pipeline.slowdown import describe_slowdown
from edgekit.progress import ignore_progress
from tests.builders.tiny import model, normal, proto, samples, uniform

TEXT = "g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }"
SLOW = (
    "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, v) "
    + " ".join(f"{b} = MatMul({a}, u)" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + " s = ReduceSum<keepdims = 1>(i, one) z = Mul(s, zero) m = MatMul(x, w) y = Add(m, z) }"
)
WEIGHTS = {"w": normal(8, 4)}
SLOW_WEIGHTS = WEIGHTS | {
    "v": normal(8, 256, scale=0.1),
    "u": normal(256, 256, scale=0.1),
    "one": np.array([1]),
    "zero": np.float32(0),
}


@pytest.fixture
def pair(tmp_path):
    fast = model(tmp_path, TEXT, weights=WEIGHTS)
    return fast, model(tmp_path, SLOW, weights=SLOW_WEIGHTS)


@pytest.mark.parametrize("with_data", [True, False])
def test_a_slower_file_is_noted_with_its_ratio_and_a_faster_one_is_not(tmp_path, pair, with_data):
    fast, slow = pair
    data = samples(tmp_path, x=uniform(4, 8)) if with_data else None

    note = describe_slowdown(fast, slow, data, seed=0)

    assert note.startswith("on this machine the result takes ")
    assert float(note.split()[6]) > 2
    assert describe_slowdown(slow, fast, data, seed=0) == ""


def test_a_file_that_does_not_run_gets_no_note(tmp_path, pair):
    wrong = samples(tmp_path, x=uniform(4, 9))
    assert describe_slowdown(*pair, wrong, seed=0) == ""


def much_more_work(source, settings, work):
    """Write a file that gives the same outputs in many times the time."""
    target = work.scratch / "made.onnx"
    target.write_bytes(proto(SLOW, weights=SLOW_WEIGHTS).SerializeToString())
    return target


def test_apply_notes_that_the_result_of_a_pass_is_slower(tmp_path, monkeypatch, pair):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    row = dataclasses.replace(
        PASSES["clean"],
        function=f"{__name__}:much_more_work",
        promise=Promise(max_growth=1e4),
    )
    monkeypatch.setitem(PASSES, "clean", row)
    source, out = pair[0].path, tmp_path / "out.onnx"

    applied = apply(
        build_step(Clean()), source, out, data=None, folder=tmp_path, tick=ignore_progress
    )

    assert [note[:32] for note in applied.notes] == ["on this machine the result takes"]
