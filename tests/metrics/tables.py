"""Tables of samples for tests of metrics, and the same ones with samples repeated."""

import numpy as np

from edgekit.metrics.metric import Table
from edgekit.metrics.registry import get_metric
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.scoring import MetricOptions


def make_sample(output, y, number=0, inputs=None):
    return ScoredSample(
        number=number,
        outputs={"out": np.asarray(output)},
        targets={"y": np.asarray(y)},
        inputs=inputs or {},
    )


def make_table(name, outputs, targets, options=None, groups=None):
    """Compute the rows of samples; those of an ignored label are left out."""
    statistic = load_statistic(name)
    rows = [
        statistic(make_sample(output, y, number), options or MetricOptions())
        for number, (output, y) in enumerate(zip(outputs, targets, strict=True))
    ]
    check = get_metric(name).check_rows
    assert check is not None
    check(rows, options or MetricOptions())
    return Table(
        rows=tuple(row for row in rows if row.size),
        groups=None if groups is None else np.asarray(groups, np.int64),
    )


def compute(name, outputs, targets, options=None, groups=None):
    """Compute the value of a metric from outputs and targets."""
    options = options or MetricOptions()
    table = make_table(name, outputs, targets, options, groups)
    return get_metric(name).compute_value(table, options)


def compute_trivial(name, targets, options=None):
    return get_metric(name).compute_trivial(
        lambda: iter({"y": np.asarray(y)} for y in targets), options or MetricOptions()
    )


def repeat(table, weights):
    """Return a table with each sample as often as its weight says."""
    times = np.repeat(np.arange(table.n), weights)
    return Table(
        rows=tuple(table.rows[i] for i in times),
        groups=None if table.groups is None else table.groups[times],
    )


def check_weights(name, table, options=None, seed=0):
    """Check that weighted values are those of the repeated samples, for several weights at once."""
    options = options or MetricOptions()
    metric = get_metric(name)
    weights = np.random.default_rng(seed).integers(0, 4, (5, table.n))
    weights[0] = 1
    found = metric.prepare(table, options)(weights.astype(np.float64))
    expected = [
        metric.compute_value(repeat(table, each), options) if each.any() else np.nan
        for each in weights
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
