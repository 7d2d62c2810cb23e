"""Outputs of a model are reduced to the user's values part by part, in bounded memory."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from edgekit.cache.store import Store
from edgekit.data.dataset import Dataset
from edgekit.errors import DeviceError, UserError
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.accuracy.resumable_scoring import Unfinished, score
from edgekit.pipeline.accuracy.tallies import Scoring, read_table
from edgekit.remote.host_names import LOCAL
from edgekit.remote.session import open_session
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_jobs import ModelRef
from tests.builders.tiny import model, samples

COUNT = 48
MODULE = """
import numpy as np

calls = []

def error(outputs, targets):
    calls.append(len(targets["y"]))
    return np.abs(outputs["y"].mean(axis=1) - targets["y"])

class Largest:
    def __init__(self):
        self.values = []
    def update(self, outputs, targets):
        self.values += list(outputs["y"].max(axis=1) + targets["y"])
    def value(self):
        return max(self.values)
"""


@pytest.fixture
def ask(tmp_path):
    """Score a model whose output has ``size`` values, by functions of a module."""
    (tmp_path / "user_scoring.py").write_text(MODULE, encoding="utf-8")
    x = np.arange(COUNT, dtype=np.float32)[:, None]
    data = samples(tmp_path, x=x, label=np.full(COUNT, 10))
    dataset = Dataset(source="data", samples=data, count=COUNT, digest="d")

    def run(*names, size=20_000, unfinished=None, tick=lambda *_: None, sends_code=False):
        made = model(
            tmp_path,
            f"g (float[N,1] x) => (float[N,{size}] y) "
            f"{{ s = Constant <value_ints = [1, {size}]> () y = Tile(x, s) }}",
        )
        jobs = tuple(
            MetricJob(name if name == "top1" else get_metric(f"user_scoring:{name}", tmp_path).name)
            for name in names
        )
        with open_session(LOCAL, home=str(tmp_path / "home")) as session:
            return score(
                session,
                ModelRef(str(made.path), "onnxruntime"),
                data,
                scoring=Scoring(metrics=jobs),
                tick=tick,
                dataset=dataset,
                unfinished=unfinished,
                sends_code=sends_code,
            )

    return run


def read_values(tally, name):
    return [row[0] for row in read_table(tally, f"user_scoring:{name}").rows]


def test_outputs_of_115_megabytes_are_reduced_in_bounded_memory(ask):
    tracemalloc.start()
    tally = ask("error", "top1", size=300_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert read_values(tally, "error") == [abs(number - 10) for number in range(COUNT)]
    assert [each.metric for each in tally.statistics] == ["user_scoring:error", "top1"]
    assert peak < 64 << 20


def test_an_interrupted_scoring_continues_with_the_values_of_the_first_samples(ask, tmp_path):
    unfinished = Unfinished(store=Store(tmp_path / "store"), key="a" * 64)

    def stop(stage, done, total):
        if stage == "score" and done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask("error", unfinished=unfinished, tick=stop)
    calls = get_metric("user_scoring:error").code.value.__globals__["calls"]
    before = sum(calls) / 2  # once with the targets of other samples
    tally = ask("error", unfinished=unfinished)

    assert before == 20
    assert read_values(tally, "error") == [abs(number - 10) for number in range(COUNT)]


def test_a_class_gets_all_samples_again_after_an_interruption(ask, tmp_path):
    unfinished = Unfinished(store=Store(tmp_path / "store"), key="a" * 64)

    def stop(stage, done, total):
        if stage == "score" and done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask("Largest", unfinished=unfinished, tick=stop)
    rows = read_table(ask("Largest", unfinished=unfinished), "user_scoring:Largest").stack()

    assert set(rows[:, 2]) == {COUNT - 1 + 10}
    blocks = rows[:, 0].astype(int)
    assert sorted(set(blocks)) == list(range(40))
    for block in range(40):
        rest = np.flatnonzero(blocks != block)
        assert rows[blocks == block][0, 3] == rest.max() + 10


def test_code_that_is_sent_computes_the_same_values_beside_the_model(ask, tmp_path):
    (tmp_path / "user_helpers").mkdir()
    (tmp_path / "user_helpers" / "__init__.py").write_text("from user_helpers.means import mean\n")
    (tmp_path / "user_helpers" / "means.py").write_text("def mean(x):\n    return x.mean(axis=1)\n")
    (tmp_path / "user_scoring.py").write_text(
        MODULE.replace('outputs["y"].mean(axis=1)', 'user_helpers.mean(outputs["y"])').replace(
            "import numpy as np", "import numpy as np\nimport user_helpers"
        )
    )

    here = ask("error", "top1")
    there = ask("error", "top1", sends_code=True)

    assert read_values(there, "error") == read_values(here, "error")
    assert read_values(there, "error") == [abs(number - 10) for number in range(COUNT)]
    assert here.statistics[1] == there.statistics[1]
    assert len(there.statistics[0].values) < 1000  # one number for each of 48 samples


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("outputs['z']", "KeyError: 'z' (user_scoring.py, line 8)"),
        ("outputs['y']", "returned 20000 numbers for sample 0"),
        ("outputs['y'].mean(axis=1) * np.nan", "returned nan for sample 0"),
    ],
)
def test_mistakes_of_code_that_is_sent_are_told_with_their_place(ask, tmp_path, body, message):
    text = MODULE.replace('np.abs(outputs["y"].mean(axis=1) - targets["y"])', body)
    (tmp_path / "user_scoring.py").write_text(text)

    with pytest.raises(DeviceError, match=re.escape(message)):
        ask("error", sends_code=True)


def test_a_class_or_a_module_elsewhere_cannot_be_sent(ask):
    with pytest.raises(UserError, match="a class needs all samples"):
        ask("Largest", sends_code=True)
