"""Values of metrics for given outputs and targets, and the values of the tasks' own eval.py."""

import importlib.util
import warnings
from types import SimpleNamespace

import numpy as np

from edgekit.metrics.metric import Table
from edgekit.metrics.registry import get_metric
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.scoring import MetricOptions
from tests.conftest import BESIDE, found_or_skipped


def compute_row(name, output, target, options=None, output_name="scores"):
    """Row of one sample."""
    sample = ScoredSample(
        number=0,
        outputs={output_name: np.asarray(output)},
        targets={"y": np.asarray(target)},
        inputs={},
    )
    return load_statistic(name)(sample, options or MetricOptions())


def compute_table(name, outputs, targets, options=None, output_name="scores"):
    """Rows of all scored samples."""
    rows = [
        compute_row(name, output, target, options, output_name)
        for output, target in zip(outputs, targets, strict=True)
    ]
    return Table(rows=tuple(row for row in rows if row.size))


def compute_value(name, outputs, targets, options=None, output_name="scores"):
    """Value of the metric over all samples."""
    table = compute_table(name, outputs, targets, options, output_name)
    return get_metric(name).compute_value(table, options or MetricOptions())


def compute_trivial(name, targets, options=None):
    """Value of the best predictor that ignores its input."""

    arrays = [{"y": np.asarray(target)} for target in targets]

    def read():
        return iter(arrays)

    return get_metric(name).compute_trivial(read, options or MetricOptions())


def check_weights(name, table, options=None, seed=0):
    """Check that a sample of weight k counts like k equal samples, also for many sets at once."""
    options = options or MetricOptions()
    metric = get_metric(name)
    weights = np.random.default_rng(seed).integers(0, 4, (5, table.n)).astype(np.float64)
    weights[:, 0] += 1
    found = metric.prepare(table, options)(weights)
    assert found.shape == (5,)
    for row, value in zip(weights.astype(int), found, strict=True):
        repeated = [r for r, count in zip(table.rows, row, strict=True) for _ in range(count)]
        expected = metric.compute_value(Table(rows=tuple(repeated)), options)
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


class _Recorder:
    """A model that keeps its outputs."""

    def __init__(self, model):
        self.model = model
        self.calls = []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, feed):
        self.calls.append(self.model(feed))
        return self.calls[-1]


def run_task(name, n=None):
    """Outputs of the float model of a task, and the values that its eval.py computes from them."""
    home = found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml")
    spec = importlib.util.spec_from_file_location("tasks_eval", home / "eval.py")
    evaluation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluation)
    entry = str(home / name)
    facts = evaluation.manifest(entry)
    model = _Recorder(evaluation.open_model(str(home / name / facts["model"])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # eval.py leaves files open
        values, _ = evaluation.TASKS[facts["kind"]](entry, facts, model, "eval", n, None)
    return SimpleNamespace(values=values, calls=model.calls, folder=home / name, facts=facts)
