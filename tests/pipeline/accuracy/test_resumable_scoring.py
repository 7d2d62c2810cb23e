"""An interrupted scoring is resumed, on this machine and on a device."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.cache.store import Store
from edgekit.errors import DeviceError
from edgekit.pipeline.accuracy.resumable_scoring import Unfinished, score
from edgekit.pipeline.accuracy.tallies import Scoring, join_tallies, read_table
from edgekit.remote.host_names import LOCAL
from edgekit.remote.session import open_session
from edgekit_agent.codec import encode
from edgekit_agent.metrics.rows import encode_rows
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_jobs import ModelRef
from edgekit_agent.worker_results import StageProgress, Tally, TallyPart
from tests.builders.tiny import model, samples

TOTAL = 40
TOP1 = Scoring(metrics=(MetricJob("top1"),))


def tally(right):
    rows = [np.array([each, 1.0]) for each in right]
    return Tally("top1", len(right), statistics=(encode_rows("top1", rows),))


RIGHT = [bool(n % 3) for n in range(TOTAL)]


class Device:
    """A device that scores in parts of ten samples; its connection breaks once."""

    def __init__(self, breaks_after=None, error=None):
        self.breaks_after, self.error = breaks_after, error
        self.starts = []

    def ask(self, job, result, *, progress):
        assert result is Tally
        self.starts.append(job.start)
        for at in range(job.start, TOTAL, 10):
            if self.breaks_after is not None and at >= self.breaks_after:
                raise self.error
            part = TallyPart(at, tally(RIGHT[at : at + 10]))
            progress(StageProgress("score", at + 10, TOTAL, part))
        return Tally("top1", 0, statistics=(encode_rows("top1", []),))


def ask(device, tmp_path, unfinished, told=lambda *_: None):
    data = samples(tmp_path, x=np.zeros((TOTAL, 2), np.float32), label=np.zeros(TOTAL, np.int64))
    return score(
        device,
        ModelRef("m", "onnxruntime"),
        data,
        scoring=TOP1,
        tick=told,
        unfinished=unfinished,
    )


@pytest.fixture
def unfinished(tmp_path):
    return Unfinished(store=Store(tmp_path / "store"), key="a" * 64)


@pytest.mark.parametrize("error", [DeviceError("the link was lost"), KeyboardInterrupt()])
def test_samples_scored_before_the_interruption_are_not_scored_again(tmp_path, unfinished, error):
    with pytest.raises(type(error)):
        ask(Device(20, error), tmp_path, unfinished)
    with pytest.raises(type(error)):
        ask(Device(30, error), tmp_path, unfinished)

    again = Device()
    assert ask(again, tmp_path, unfinished) == tally(RIGHT)
    assert again.starts == [30]


def test_a_finished_scoring_leaves_no_files(tmp_path, unfinished):
    with pytest.raises(KeyboardInterrupt):
        ask(Device(20, KeyboardInterrupt()), tmp_path, unfinished)
    ask(Device(), tmp_path, unfinished)

    fresh = Device()
    ask(fresh, tmp_path, unfinished)
    assert fresh.starts == [0]


@pytest.mark.parametrize(
    "kept",
    [
        {"statistics": [{"metric": "binary", "values": ""}]},
        {"statistics": [{"metric": "top1", "values": "AAAA"}]},
        {"statistics": [{"metric": "top1", "values": "", "lengths": "AQAAAA=="}]},
        {"statistics": []},
        {"n": TOTAL},
        {"n": 7},
    ],
)
def test_a_partial_result_that_does_not_fit_is_computed_again(tmp_path, unfinished, kept):
    whole = tally(RIGHT[:10])
    unfinished.store.remember("unfinished-tallies", unfinished.key, encode(whole) | kept)

    device = Device()
    assert ask(device, tmp_path, unfinished) == tally(RIGHT)
    assert device.starts == [0]


@pytest.mark.parametrize(("start", "count"), [(5, 1), (0, TOTAL + 1)])
def test_a_result_out_of_order_is_a_fault_of_the_device(tmp_path, unfinished, start, count):
    class Skips(Device):
        def ask(self, job, result, *, progress):
            part = TallyPart(start, tally([True] * count))
            progress(StageProgress("score", 6, TOTAL, part))

    with pytest.raises(DeviceError, match="invalid answer of the agent"):
        ask(Skips(), tmp_path, unfinished)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 39])
def test_two_partial_results_are_combined(cut):
    assert join_tallies([tally(RIGHT[:cut]), tally(RIGHT[cut:])]) == tally(RIGHT)


def test_a_real_interrupted_agent_is_asked_for_the_rest(tmp_path):
    """Some seconds of work, cut off once the first part has come."""
    count, size, times = 60, 512, 24
    rounds = "".join(f"h{i + 1} = MatMul(h{i}, w) " for i in range(times))
    text = (
        f"g (float[N,{size},{size}] x) => (float[N,{size}] y) "
        f"{{ h0 = Identity(x) {rounds} y = ReduceMean<keepdims = 0, axes = [1]>(h{times}) }}"
    )
    made = model(tmp_path, text, weights={"w": np.eye(size, dtype=np.float32)})
    x = np.random.default_rng(0).normal(size=(count, size, size)).astype(np.float16)
    best = x.astype(np.float32).mean(axis=1).argmax(axis=1)
    data = samples(tmp_path, x=x.astype(np.float32), label=np.where(np.arange(count) % 3, best, 0))
    unfinished = Unfinished(store=Store(tmp_path / "store"), key="a" * 64)
    told = []

    def tick(stage, done, total):
        told.append((stage, done, total))
        if (tmp_path / "store").exists() or done == total > 0:
            return
        if parts:
            raise KeyboardInterrupt

    parts = []

    class Listening:
        def __init__(self, session):
            self.session = session

        def ask(self, job, result, *, progress):
            def hear(said):
                parts.extend(() if said.part is None else (said.part,))
                progress(said)

            return self.session.ask(job, result, progress=hear)

    def once():
        with open_session(LOCAL, home=str(tmp_path / "home")) as session:
            return score(
                Listening(session),
                ModelRef(str(made.path), "onnxruntime"),
                data,
                scoring=TOP1,
                tick=tick,
                unfinished=unfinished,
            )

    with pytest.raises(KeyboardInterrupt):
        once()
    first = unfinished.recall(TOP1, count)
    told.clear()
    whole = once()

    assert 0 < first.n < count
    assert min(done for stage, done, _ in told if stage == "score") > first.n
    assert whole.n == count
    predicted = read_table(whole, "top1").stack()[:, 1]
    assert predicted.tolist() == best.tolist()
    assert read_table(first, "top1").stack()[:, 1].tolist() == best[: first.n].tolist()
