"""Outputs returned to the host as rows: every type and shape, refusals, and bounded memory."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.accuracy import score
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.metrics.outputs import decode_outputs
from edgekit_agent.metrics.rows import (
    decode_rows,
    encode_rows,
    get_rest,
    iter_pieces,
    join_pieces,
)
from edgekit_agent.scoring import MetricJob, MetricOptions, Postprocess
from edgekit_agent.worker_jobs import ModelRef, ScoreJob
from edgekit_agent.worker_results import Tally
from tests.builders import tiny

MIB = 1 << 20
JOBS = (MetricJob("outputs"),)


def to_row(**outputs):
    return load_statistic("outputs")(ScoredSample(7, outputs, {}, {}), MetricOptions())


@pytest.mark.parametrize(
    "value",
    [
        np.array(True),
        np.array([-(2**53), 2**53], np.int64),
        np.array([[0, 255]], np.uint8),
        np.array([0.1, -0.0, 65504], np.float16),
        np.array([[[1e-45, 3.4e38]]], np.float32),
        np.array([0.1, 1e300]),
        np.zeros((0, 4), np.float32),
        np.zeros(3, np.uint64),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_outputs_survive_the_row_bit_by_bit(value):
    found = decode_outputs(to_row(**{"a": np.arange(3), "großer Name/1:0": value}))

    assert list(found) == ["a", "großer Name/1:0"]
    back = found["großer Name/1:0"]
    assert (back.dtype, back.shape, back.tobytes()) == (value.dtype, value.shape, value.tobytes())


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (np.array([1, np.inf], np.float32), "model_failed", "output a of sample 7 is not finite"),
        (np.array([2**53 + 1]), "bad_job", "integers above 2^53"),
        (np.array(["text"]), "bad_job", "output a has type <U4"),
        (np.zeros(6_000_001, np.float32), "bad_job", "have 6,000,001 values"),
    ],
)
def test_outputs_that_a_row_cannot_hold_are_refused(value, kind, told):
    with pytest.raises(AgentError) as refused:
        to_row(a=value)
    assert refused.value.failure.kind == kind
    assert told in refused.value.failure.message


@pytest.mark.parametrize("cut", [0, 1, 4, -1])
def test_a_damaged_row_is_an_error(cut):
    with pytest.raises(ValueError, match=r"end early|not a whole number"):
        decode_outputs(to_row(a=np.ones(3))[:cut])
    with pytest.raises(ValueError, match="not a whole number"):
        decode_outputs(np.array([1, 1, 97, 11, -1.0]))


@pytest.mark.parametrize("name", ["echo", "echo_batch_4"])
def test_an_agent_returns_outputs_beside_another_metric(agent, model_ref, samples, name):
    rows = np.array([[1, 2, 3], [3, 2, 1], [1, 3, 2], [9, 1, 1], [1, 9, 1]], np.float32)
    made = samples(x=rows, label=np.zeros(5, np.int64))
    job = ScoreJob(model_ref(name), made, "top1", metrics=(MetricJob("top1"), *JOBS))

    tally = agent.ask(job, Tally)

    found = [decode_outputs(row)["y"] for row in decode_rows(tally.statistics[1], tally.n)]
    np.testing.assert_array_equal(found, rows)
    assert found[0].dtype == np.float32


def test_outputs_are_those_of_the_post_processing(agent, model_ref, samples):
    made = samples(x=np.array([[1, 2, 3]], np.float32), label=np.zeros(1, np.int64))
    job = ScoreJob(
        *(model_ref("echo"), made, "outputs"),
        metrics=JOBS,
        postprocess=Postprocess("threshold", threshold=1.5),
    )
    (row,) = decode_rows(agent.ask(job, Tally).statistics[0], 1)
    assert decode_outputs(row)["y"].tolist() == [0, 1, 1]


@pytest.mark.parametrize("batch", ["N", 16])
def test_large_outputs_take_bounded_memory_and_are_sent_in_parts(tmp_path, batch):
    """48 samples with 1.2 MB of outputs each: 115 MB as rows."""
    size = 300_000
    made = tiny.model(
        tmp_path,
        f"g (float[{batch},1] x) => (float[{batch},{size}] y) "
        "{ s = Constant <value_ints = [1, 300000]> () y = Tile(x, s) }",
    )
    x = np.arange(48, dtype=np.float32)[:, None]
    data = tiny.samples(tmp_path, x=x, label=np.zeros(48, np.int64))
    job = ScoreJob(ModelRef(str(made.path), "onnxruntime"), data, "outputs", metrics=JOBS)
    seen = []

    def progress(stage, done, total, part=None):
        if part is not None:
            seen.append((part["start"], part["tally"]["n"]))
            json.dumps({"progress": part}).encode()  # as for the host

    tracemalloc.start()
    rest = score(job, progress)
    json.dumps(encode(rest)).encode()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # Each row has more values than one piece.
    assert seen == [(number, count) for number in range(48) for count in (0, 1)]
    assert peak < 64 * MIB


@pytest.mark.parametrize("size", [3 << 16, (3 << 16) + 1, 2 * (3 << 16), 500_000])
def test_rows_that_are_sent_in_pieces_arrive_whole(size):
    row = np.random.default_rng(size).normal(size=size)
    pieces = list(iter_pieces("outputs", row))
    assert len(pieces) == (size - 1) // (3 << 16)
    joined = join_pieces(pieces, encode_rows("outputs", [get_rest(row)]))
    assert joined == encode_rows("outputs", [row])
    np.testing.assert_array_equal(decode_rows(joined, 1)[0], row)


def test_outputs_of_many_values_take_less_than_64_mib(tmp_path):
    """The values are sent in pieces of 1.5 MiB; at once, they would take 300 MiB."""
    size = 5_900_000
    made = tiny.model(
        tmp_path,
        f"g (float[N,1] x) => (float[N,{size}] y) "
        f"{{ s = Constant <value_ints = [1, {size}]> () y = Tile(x, s) }}",
    )
    data = tiny.samples(tmp_path, x=np.ones((1, 1), np.float32), label=np.zeros(1, np.int64))
    job = ScoreJob(ModelRef(str(made.path), "onnxruntime"), data, "outputs", metrics=JOBS)
    tracemalloc.start()
    score(job, lambda stage, done, total, part=None: part and json.dumps(part).encode())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - 4 * size < 64 * MIB  # beside the output itself
