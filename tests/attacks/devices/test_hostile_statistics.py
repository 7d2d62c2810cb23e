"""Statistics of a hostile or broken device end in one line, in bounded time and memory."""

from __future__ import annotations

import base64
import json
import resource
import shlex
import time

import numpy as np
import pytest

from edgekit.data.dataset import Dataset
from edgekit.errors import DeviceError, ExitCode
from edgekit.metrics.registry import get_metric, list_metrics
from edgekit.pipeline.accuracy.comparison import compare_tallies
from edgekit.pipeline.accuracy.resumable_scoring import score
from edgekit.pipeline.accuracy.tallies import Scoring, check_statistics, compute_scores
from edgekit.remote.local import LocalTransport
from edgekit.remote.session import Session
from edgekit_agent.codec import encode
from edgekit_agent.metrics.rows import encode_rows
from edgekit_agent.samples import Column, Samples
from edgekit_agent.scoring import MetricJob, MetricOptions, Postprocess
from edgekit_agent.worker_jobs import ModelRef
from edgekit_agent.worker_results import Statistics, Tally, TallyPart

HUGE = 1e300
BITS = 1 << 10


def samples(n):
    return Samples(
        (Column("x", "/h/x", 0, "float32", (n, 2)),), label=Column("y", "/h/y", 0, "int64", (n,))
    )


def statistics(name, *rows):
    return encode_rows(name, [np.array(row, np.float64) for row in rows])


def tally(*each, n, metric=None):
    return Tally(metric or each[0].metric, n, statistics=each)


def part(start, found):
    return {"progress": {"stage": "score", "part": encode(TallyPart(start, found))}}


def piece(start, metric="top1", values=3 << 16, n=0, value=0.0):
    text = base64.b64encode(np.full(values, value).tobytes()).decode()
    sent = TallyPart(start, Tally("top1", n), Statistics(metric, text))
    return {"progress": {"stage": "score", "part": encode(sent)}}


def result(found):
    return {"result": encode(found)}


class ScriptedTransport(LocalTransport):
    """A device that answers the first job with fixed lines."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def open(self, command):
        greeting = shlex.quote('{"edgekit": {"home": "/h"}}')
        return super().open(f"echo {greeting}; read job; cat {shlex.quote(str(self.path))}")


def ask(tmp_path, names, *lines, n=3, postprocess=None, options=None, version="1.1"):
    stated = {"protocol": version} if version else {}
    text = "".join(json.dumps({**line, **stated}) + "\n" for line in lines)
    (tmp_path / "lines").write_text(text)
    jobs = tuple(MetricJob(name, options or MetricOptions()) for name in names)
    transport = ScriptedTransport(tmp_path / "lines")
    try:
        return score(
            Session(transport),
            ModelRef("/h/m", "onnxruntime"),
            samples(n),
            scoring=Scoring(metrics=jobs, postprocess=postprocess),
            tick=lambda *_: None,
        )
    finally:
        transport.close()


def assert_refused(tmp_path, names, *lines, **more):
    started = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        ask(tmp_path, names, *lines, **more)
    assert time.monotonic() - started < 20
    assert caught.value.exit_code == ExitCode.DEVICE
    assert caught.value.message.isprintable()
    assert len(str(caught.value)) < 1000
    return caught.value.message


GOOD = [[1, 4], [0, 2], [1, 7]]


def test_honest_statistics_are_taken(tmp_path):
    first = part(0, tally(statistics("top1", *GOOD[:2]), n=2))
    last = result(tally(statistics("top1", GOOD[2]), n=1))
    found = ask(tmp_path, ["top1"], first, last)
    assert found == tally(statistics("top1", *GOOD), n=3)


BAD_LINES = {
    "n of 2^62 without rows": [
        result(Tally("top1", 1 << 62, statistics=(Statistics("top1", ""),)))
    ],
    "n of 2^31 in a part": [
        part(0, Tally("top1", 1 << 31, statistics=(Statistics("top1", ""),))),
    ],
    "n without rows": [result(Tally("top1", 3, statistics=(Statistics("top1", ""),)))],
    "negative n": [result(Tally("top1", -3, statistics=(statistics("top1", *GOOD),)))],
    "negative n in a part": [part(0, Tally("top1", -1, statistics=(statistics("top1", *GOOD),)))],
    "too few samples": [result(tally(statistics("top1", *GOOD[:2]), n=2))],
    "too many samples": [result(tally(statistics("top1", *GOOD, [1, 1]), n=4))],
    "another metric": [result(tally(statistics("top5", *GOOD), n=3, metric="top1"))],
    "a further metric": [
        result(tally(statistics("top1", *GOOD), statistics("mae", *GOOD), n=3)),
    ],
    "a part of another metric": [
        part(0, tally(statistics("mae", *GOOD[:1]), n=1, metric="top1")),
        result(tally(statistics("top1", *GOOD[1:]), n=2)),
    ],
    "a part without statistics": [
        part(0, Tally("top1", 1, 1, "80", (4,))),
        result(tally(statistics("top1", *GOOD[1:]), n=2)),
    ],
    "parts out of order": [
        part(1, tally(statistics("top1", *GOOD[1:2]), n=1)),
        part(0, tally(statistics("top1", *GOOD[:1]), n=1)),
        result(tally(statistics("top1", *GOOD[2:]), n=1)),
    ],
    "a part twice": [
        part(0, tally(statistics("top1", *GOOD[:1]), n=1)),
        part(0, tally(statistics("top1", *GOOD[:1]), n=1)),
        result(tally(statistics("top1", *GOOD[2:]), n=1)),
    ],
    "a short piece": [piece(0, values=3)],
    "a piece with samples": [piece(0, n=1)],
    "a piece of another metric": [piece(0, metric="mae")],
    "a piece of a later sample": [piece(1)],
    "a piece of a sample that does not exist": [piece(1 << 60)],
    "a piece that is not a number": [
        piece(0, value=np.nan),
        part(0, tally(statistics("top1", GOOD[0]), n=1)),
    ],
    "a piece before two samples": [
        piece(0),
        part(0, tally(statistics("top1", *GOOD[:2]), n=2)),
    ],
    "a piece before the result": [piece(0), result(tally(statistics("top1", *GOOD), n=3))],
    "a row that is too long": [
        piece(0),
        part(0, tally(statistics("top1", GOOD[0]), n=1)),
        result(tally(statistics("top1", *GOOD[1:]), n=2)),
    ],
    "a part beyond the end": [part(1 << 60, tally(statistics("top1", GOOD[0]), n=1))],
    "a hole at the end": [
        part(0, tally(statistics("top1", *GOOD[:1]), n=1)),
        result(tally(statistics("top1"), n=0)),
    ],
    "lengths that do not add up": [
        result(
            tally(
                Statistics(
                    "top1",
                    base64.b64encode(np.zeros(6).tobytes()).decode(),
                    base64.b64encode(np.array([2, 2, 3], "<u4").tobytes()).decode(),
                ),
                n=3,
            )
        )
    ],
    "huge lengths": [
        result(
            tally(
                Statistics(
                    "top1",
                    base64.b64encode(np.zeros(6).tobytes()).decode(),
                    base64.b64encode(np.full(3, 2**32 - 1, "<u4").tobytes()).decode(),
                ),
                n=3,
            )
        )
    ],
    "not a number": [
        result(
            tally(Statistics("top1", base64.b64encode(np.full(6, np.nan).tobytes()).decode()), n=3)
        )
    ],
    "not base64": [result(tally(Statistics("top1", "####"), n=3))],
    "half a number": [result(tally(Statistics("top1", "AAAA"), n=3))],
}


@pytest.mark.parametrize("lines", BAD_LINES.values(), ids=list(BAD_LINES))
def test_a_result_that_does_not_fit_the_job_is_refused(tmp_path, lines):
    assert "invalid answer" in assert_refused(tmp_path, ["top1"], *lines)


def test_more_lengths_than_samples_cost_little_memory(tmp_path):
    lengths = base64.b64encode(bytes(4 * 8_000_000)).decode()
    bomb = tally(Statistics("top1", "", lengths), n=8_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in (part(0, bomb), result(bomb)):
        assert_refused(tmp_path, ["top1"], line)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 << 10


def encode_name(name):
    return [len(name), *map(ord, name)]


def detection(label, score=0.5, hits=0, ignored=0):
    return [label, score, hits, ignored]


BAD_ROWS = [
    ("top1", [2, 4]),
    ("top1", [0.5, 4]),
    ("top1", [1, -1]),
    ("top1", [1, HUGE]),
    ("top1", [1]),
    ("top1", [1, 2, 3, 4]),
    ("top1", []),
    ("binary", [1, 2]),
    ("agreement", [1, 0.5]),
    ("macro-f1", [1, 2, 3]),
    ("macro-f1", [1, HUGE]),
    ("macro-f1", [1, 2**40]),
    ("macro-f1", [-1, 1]),
    ("log-loss", [-1, 1]),
    ("log-loss", [1, 0]),
    ("log-loss", [1, -5]),
    ("ece", [1, *[0] * 14]),
    ("ece", [1, 2, 0, *[0] * 15]),
    ("ece", [1, 1, -1, *[0] * 15]),
    ("ece", [1, 1, 0, 2, *[0] * 14]),
    ("multilabel-map", [1, 0, 0.5]),
    ("multilabel-map", [2, 0, 0.5, 0.5]),
    ("multilabel-f1", [1, 0, 1, 0.5]),
    ("auc", [2, 0.5]),
    ("auc", [0.5, 0.5]),
    ("eer", [1, 0, 0.5]),
    ("spearman", [1]),
    ("reconstruction-auc", [1, -1]),
    ("reconstruction-auc", [1, -1, 0, 0]),
    ("reconstruction-auc", [1, 1, 0, -1]),
    ("pairs-auc", [0.5, 1, 2]),
    ("pairs-eer", [1, 2]),
    ("recall", [1]),
    ("mae", [1, 0]),
    ("mae", [-1, 1]),
    ("mae", [1, 1.5]),
    ("rmse", []),
    ("r2", [-1, 5]),
    ("r2", [1, 2, 3]),
    ("relative-rms", [-1, 1]),
    ("cosine", [2]),
    ("psnr", [-1]),
    ("psnr", [1, 1]),
    ("ssim", [HUGE]),
    ("miou", [1, 1]),
    ("miou", [2, 1, 1]),
    ("miou", [-1, 1, 1]),
    ("dice", [0.5, 1, 1]),
    ("cer", [1, 2]),
    ("cer", [-1, 2, 0]),
    ("wer", [0, 2, 0]),
    ("perplexity", [1, 0]),
    ("perplexity", [-9, 1]),
    ("token-accuracy", [3, 2]),
    ("output-cosine", [1, 1]),
    ("output-cosine", [-1, 1, 1]),
    ("output-rms", [-1, 1]),
    ("map", []),
    ("map", [-1]),
    ("map", [HUGE]),
    ("map", [0.5]),
    ("map", [2, 1, 1]),
    ("map", [1, 1, 1, 5]),
    ("map", [1, HUGE, 1]),
    ("map", [1, -1, 1]),
    ("map", [1, 1, -1]),
    ("map", [2, 1, 1, 1, 1]),
    ("map", [0, *detection(HUGE)]),
    ("map", [0, *detection(0.5)]),
    ("map", [1, 1, 1, *detection(1, hits=BITS)]),
    ("map", [1, 1, 1, *detection(1, hits=-1)]),
    ("map", [1, 1, 1, *detection(1, hits=0.5)]),
    ("map", [1, 1, 1, *detection(1, ignored=HUGE)]),
    ("map", [1, 1, 1, *detection(1, hits=1, ignored=1)]),
    ("map", [1, 1, 1, *detection(1, hits=1), *detection(1, hits=1)]),
    ("map50", [1, 1, 1, *detection(2, hits=1)]),
    ("map50", [0, *detection(1) * 101]),
]


@pytest.mark.parametrize(("name", "row"), BAD_ROWS)
def test_a_row_that_no_statistic_gives_is_refused(tmp_path, name, row):
    found = tally(statistics(name, row, row, row), n=3)
    assert name in assert_refused(tmp_path, [name], result(found))


def test_every_metric_checks_its_rows():
    assert [metric.name for metric in list_metrics() if metric.check_rows is None] == []
    assert {name for name, _ in BAD_ROWS} >= {m.name for m in list_metrics()} - {"top5"}


@pytest.mark.parametrize("name", ["recall", "r2", "multilabel-map", "output-rms", "output-cosine"])
def test_rows_of_different_sizes_are_refused(tmp_path, name):
    rows = {
        "recall": ([1, 2, 3], [1, 2, 3, 4]),
        "r2": ([1, 2], [1, 2, 3, 4]),
        "multilabel-map": ([1, 2], [1, 0, 3, 4]),
        "output-rms": ([1, 2], [1, 2, 3, 4]),
        "output-cosine": ([1, 2, 0], [1, 2, 0, 1, 2, 0]),
    }[name]
    found = tally(statistics(name, *rows), n=2)
    assert "differ in size" in assert_refused(tmp_path, [name], result(found), n=2)


@pytest.mark.parametrize("name", ["miou", "map"])
def test_many_classes_do_not_fill_the_memory(name):
    n = 30_000
    rows = {
        "miou": [np.zeros(3), *[np.ones(0)] * (n - 2), np.zeros(15_000)],
        "map": [np.array([1.0, number, 1.0]) for number in range(n)],
    }[name]
    found = tally(encode_rows(name, rows), n=n)
    with pytest.raises(DeviceError, match="too many"):
        check_statistics(found, Scoring(metrics=(MetricJob(name),)))


def test_samples_that_are_left_out_must_be_those_of_the_original():
    job = MetricJob("log-loss")
    before, after = (
        tally(statistics("log-loss", *rows), n=3)
        for rows in ([[1, 1], [], [2, 1]], [[1, 1], [2, 1], []])
    )
    with pytest.raises(DeviceError, match="invalid answer"):
        compare_tallies(
            before, after, scoring=Scoring(metrics=(job,)),
            margins=(get_metric("log-loss").margin,),
            evaluation=Dataset(source="eval.npz", samples=Samples(()), count=3, digest=""),
        )  # fmt: skip


# ---------------------------------------------------------------- agents of protocol 1.0

OLD = {"metric": "top1", "n": 3, "correct": 2, "hits": "c0", "predictions": [0, 1, 2]}


def test_an_agent_of_protocol_1_0_scores_top1(tmp_path):
    found = ask(tmp_path, ["top1"], {"result": OLD}, version="")
    (value,) = compute_scores(found, Scoring(metrics=(MetricJob("top1"),)))
    assert value.value == 2 / 3


@pytest.mark.parametrize(
    "more",
    [
        {"names": ["mae"]},
        {"names": ["top1", "top5"]},
        {"names": ["top1"], "options": MetricOptions(threshold=0.2)},
        {"names": ["top1"], "postprocess": Postprocess("softmax")},
    ],
)
@pytest.mark.parametrize("version", ["", "1.1"])
def test_what_protocol_1_0_cannot_express_is_refused(tmp_path, version, more):
    line = {"result": OLD | {"metric": more["names"][0]}}
    rest = {key: value for key, value in more.items() if key != "names"}
    told = assert_refused(tmp_path, more["names"], line, version=version, **rest)
    assert "protocol 1.0 knows top1, top5 and binary alone" in told
