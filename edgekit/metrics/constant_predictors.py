"""Predictors that ignore their input: the least that a model must exceed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.metric import Aggregate, Floats, Table, TargetReader, Targets
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.scoring import MetricOptions

# Values that are held in memory for a median.
_MOST_VALUES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class TargetShapes:
    """Number of samples, and the shape of their main targets.

    Attributes:
        samples: Number of samples.
        common: Shape that all of them have; ``None`` if they differ.
        values: Number of values of all samples.
    """

    samples: int
    common: tuple[int, ...] | None
    values: int


def read_shapes(read: TargetReader) -> TargetShapes:
    """Read the shapes of the main targets."""
    shapes = [targets["y"].shape for targets in read()]
    return TargetShapes(
        samples=len(shapes),
        common=shapes[0] if len(set(shapes)) == 1 else None,
        values=sum(int(np.prod(shape)) for shape in shapes),
    )


def evaluate_predictor(
    name: str,
    prepare: Callable[[Table, MetricOptions], Aggregate],
    read: TargetReader,
    options: MetricOptions,
    predict: Callable[[Targets], NDArray[Any]],
) -> float:
    """Compute the value of a metric for outputs that are made without the model.

    Args:
        name: Name of the statistic.
        prepare: The metric's aggregate.
        read: Reads the targets of each sample.
        options: Options of the metric.
        predict: Output for a sample; it uses the shape of the targets alone.
    """
    statistic = load_statistic(name)
    chosen = replace(options, output=None)
    rows = []
    for number, targets in enumerate(read()):
        outputs = {"y": predict(targets)}
        sample = ScoredSample(number=number, outputs=outputs, targets=dict(targets), inputs={})
        row = statistic(sample, chosen)
        if row.size:
            rows.append(row)
    if not rows:
        return float("nan")
    table = Table(rows=tuple(rows))
    return float(prepare(table, options)(np.ones((1, table.n)))[0])


def fit_mean(read: TargetReader) -> Floats:
    """Compute the mean target of each position; of all values where shapes differ."""
    shapes = read_shapes(read)
    if shapes.common is None:
        total = sum(float(targets["y"].sum(dtype=np.float64)) for targets in read())
        return np.asarray(total / shapes.values)
    sums = np.zeros(shapes.common)
    for targets in read():
        sums += targets["y"]
    return np.asarray(sums / shapes.samples)


def fit_median(read: TargetReader) -> Floats:
    """Compute the median target of each position; of all values where shapes differ.

    Large targets are represented by evenly spaced samples, or evenly spaced values.
    """
    shapes = read_shapes(read)
    step = max(1, -(-shapes.values // _MOST_VALUES))
    if shapes.common is None:
        parts = [targets["y"].reshape(-1)[::step] for targets in read()]
        return np.asarray(np.median(np.concatenate(parts)))
    rows = [targets["y"] for number, targets in enumerate(read()) if number % step == 0]
    return np.asarray(np.median(np.stack(rows), axis=0))


def broadcast_to_target(values: Floats) -> Callable[[Targets], NDArray[Any]]:
    """Return the predictor that gives these values, in the shape of the targets."""
    return lambda targets: np.broadcast_to(values, targets["y"].shape)
