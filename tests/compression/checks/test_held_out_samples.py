"""The reported error of a pass is measured on held-out samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.compression.checks.agreement import Agreement, compare_models
from edgekit.compression.checks.contracts import check_agreement
from edgekit.compression.checks.held_out_samples import hold_out_samples
from edgekit.compression.checks.output_notes import describe_losses
from edgekit.compression.pass_specs import PASSES, build_step
from edgekit.compression.step_runner import run_checked
from edgekit.pass_settings import (
    LowRank,
    PruneChannels,
    PruneWeights,
    QuantizeStatic,
    QuantizeWeights,
)
from edgekit_agent.measure.feeds import open_columns
from tests.builders.tiny import model, normal, run, samples, work

NET = "g (float[N,{inputs}] x) => (float[N,8] y) {{h = Gemm(x, w, b) r = Relu(h) y = MatMul(r, v)}}"


def rows(parts):
    """The numbers that samples hold, in their order."""
    found = []
    for part in parts:
        with open_columns(part.columns) as opened:
            (column,) = opened.values()
            found += column.read(0, column.column.shape[0]).ravel().tolist()
    return found


def make_numbered(folder, count, sequence=None):
    made = samples(folder, x=np.arange(count, dtype=np.float32)[:, None])
    if sequence is None:
        return work(folder, made)
    (column,) = samples(folder, sequence=np.asarray(sequence)).columns
    return work(folder, replace(made, sequence=column))


@pytest.mark.parametrize(
    ("count", "batch", "kept"),
    [(12, 1, 2), (16, 1, 4), (24, 1, 4), (64, 1, 8), (1000, 1, 16), (24, 4, 4), (100, 32, 0)],
)
def test_a_few_evenly_spread_samples_are_held_out(tmp_path, count, batch, kept):
    made = hold_out_samples(make_numbered(tmp_path, count), least=12, batch=batch, in_time=False)

    unseen = rows(made.unseen)
    assert len(unseen) == kept
    assert sorted(unseen + rows(made.fitting)) == list(range(count))
    if kept > 4:  # evenly, so that a split sorted by class has all of them
        assert np.diff(unseen[::2]).max() <= -(-count // (kept // 2)) + 2


@pytest.mark.parametrize(("count", "batch"), [(11, 1), (12, 4)])
def test_of_few_samples_none_are_held_out(tmp_path, count, batch):
    made = hold_out_samples(make_numbered(tmp_path, count), least=12, batch=batch, in_time=False)

    assert made.unseen == ()
    assert rows(made.fitting) == list(range(count))


def test_whole_batches_are_held_out(tmp_path):
    made = hold_out_samples(make_numbered(tmp_path, 48), least=12, batch=6, in_time=False)

    unseen = rows(made.unseen)
    assert len(unseen) == 6
    assert unseen[0] % 6 == 0
    assert np.array_equal(np.diff(unseen), np.ones(5))


def test_whole_sequences_are_held_out(tmp_path):
    sequence = np.repeat(np.arange(10), 7)
    made = hold_out_samples(make_numbered(tmp_path, 70, sequence), least=12, batch=1, in_time=True)

    assert made.notes == []
    apart = set(sequence[np.int64(rows(made.unseen))])
    assert apart
    assert not apart & set(sequence[np.int64(rows(made.fitting))])


@pytest.mark.parametrize(
    ("sequences", "steps", "kept"), [(4, 50, 1), (16, 24, 2), (40, 30, 5), (300, 2, 16), (40, 1, 5)]
)
def test_an_eighth_of_the_sequences_is_held_out_whatever_their_length(
    tmp_path, sequences, steps, kept
):
    sequence = np.repeat(np.arange(sequences), steps)
    data = make_numbered(tmp_path, len(sequence), sequence)
    made = hold_out_samples(data, least=12, batch=1, in_time=True)

    assert len(set(sequence[np.int64(rows(made.unseen))])) == kept


def test_the_last_steps_of_a_single_sequence_are_held_out(tmp_path):
    made = hold_out_samples(make_numbered(tmp_path, 80), least=12, batch=1, in_time=True)

    assert rows(made.unseen) == list(range(70, 80))
    (said,) = made.notes
    assert "the last steps of one sequence" in said


def test_a_held_out_sample_keeps_its_number(tmp_path):
    made = hold_out_samples(make_numbered(tmp_path, 64), least=12, batch=1, in_time=False)

    assert all(part.first == rows([part])[0] for part in (*made.unseen, *made.fitting))


def wide(folder, *, inputs=64):
    weights = {"w": normal(inputs, 96, seed=1), "b": normal(96, seed=2), "v": normal(96, 8, seed=3)}
    return model(folder, NET.format(inputs=inputs), weights=weights)


@pytest.mark.parametrize(
    ("settings", "count", "unseen"),
    [
        (PruneChannels(remove=0.3), 24, 4),
        (LowRank(keep=0.6), 24, 4),
        (PruneWeights(sparsity=0.5), 24, 4),
        (QuantizeWeights(bits=3), 24, 4),
        (QuantizeStatic(), 64, 8),
    ],
)
def test_the_reported_error_is_that_on_held_out_samples(tmp_path, settings, count, unseen):
    source = wide(tmp_path)
    data = samples(tmp_path, x=normal(count, 64, seed=4))

    found = run_checked(build_step(settings), source, work(tmp_path, data))

    x = normal(2000, 64, seed=9)
    before, after = run(source, x=x)[0], run(found.model, x=x)[0]
    real = float(np.sqrt(np.square(after - before).sum() / np.square(before).sum()))
    assert found.agreement.unseen == unseen
    assert found.agreement.worst[1] > 0.5 * real


def test_an_overfitted_result_gets_a_note(tmp_path):
    source = wide(tmp_path)
    data = samples(tmp_path, x=normal(24, 64, seed=4))

    found = run_checked(build_step(PruneChannels(remove=0.2)), source, work(tmp_path, data))

    name, error = found.agreement.worst
    assert error > 2 * found.agreement.seen_errors[name]
    assert any(
        note.startswith("the result overfits the calibration samples") for note in found.notes
    )


def test_outputs_that_are_mostly_lost_are_named_with_their_error(tmp_path):
    source = wide(tmp_path)
    data = samples(tmp_path, x=normal(64, 64, seed=4))

    found = run_checked(build_step(PruneChannels(remove=0.6)), source, work(tmp_path, data))

    error = found.agreement.relative_errors["y"]
    assert error > 0.5
    (said,) = [
        note for note in found.notes if note.startswith("outputs have a large relative error")
    ]
    assert f"y {error:.2g}" in said
    assert "(setting remove)" in said


@pytest.mark.parametrize(("error", "told"), [(0.29, False), (0.31, True), (2.0, True)])
def test_a_relative_error_above_0_3_gets_a_note(error, told):
    found = Agreement(
        samples=16,
        relative_errors={"y": error, "z": 0.1},
        correlation={},
        equal=None,
        stuck=(),
        unseen=4,
        seen_errors={"y": error},
    )
    notes = list(describe_losses(PASSES["low-rank"], found))
    assert bool(notes) == told
    assert all(f"y {error:.2g}" in note and "z 0.1" not in note for note in notes)


@pytest.mark.parametrize(("kept", "added", "lost"), [(0.2, 1.0, True), (2.5, 0.1, False)])
def test_an_output_worse_than_a_constant_is_refused(tmp_path, kept, added, lost):
    text = "g (float[N,16] x) => (float[N,8] y) {y = MatMul(x, v)}"
    v, noise = normal(16, 8, seed=1), normal(16, 8, seed=2)
    before = model(tmp_path, text, weights={"v": v})
    after = model(tmp_path, text, weights={"v": kept * v + added * noise})
    apart = hold_out_samples(
        work(tmp_path, samples(tmp_path, x=normal(64, 16))), least=12, batch=1, in_time=False
    )

    found = compare_models(before, after, apart.fitting, unseen=apart.unseen, seed=0)

    assert found.relative_errors["y"] > 1
    assert (found.lost == ("y",)) is lost
    said = list(check_agreement(PASSES["low-rank"].promise, found, asked=True))
    assert bool(said) is lost
    assert all(
        "output y has a relative error of" in each and "constant output" in each for each in said
    )
    assert not list(check_agreement(PASSES["quantize-static"].promise, found))


def test_an_error_measured_on_calibration_samples_gets_a_note(tmp_path):
    source = wide(tmp_path)
    data = samples(tmp_path, x=normal(6, 64, seed=4))

    found = run_checked(build_step(QuantizeStatic()), source, work(tmp_path, data))

    assert found.agreement.unseen == 0
    assert any(
        "on the 6 samples that the pass used for calibration" in note for note in found.notes
    )


def test_passes_that_fit_to_no_samples_are_judged_by_all(tmp_path):
    assert not PASSES["quantize-dynamic"].needs_calibration
    source = wide(tmp_path)
    data = samples(tmp_path, x=normal(24, 64, seed=4))
    settings = PASSES["quantize-dynamic"].settings()

    found = run_checked(build_step(settings), source, work(tmp_path, data))

    assert (found.agreement.samples, found.agreement.unseen) == (16, 0)
