"""Samples that a candidate predicts worse or better than the original, by their own values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.metrics.metric import Metric, Table
from edgekit_agent.scoring import MetricOptions


@dataclass(frozen=True, kw_only=True)
class ChangedSample:
    """A sample whose value changed.

    Attributes:
        number: Number of the sample, from 0.
        before: Its value with the original.
        after: Its value with the candidate.
        loss: The difference; positive = the candidate is worse.
    """

    number: int
    before: float
    after: float
    loss: float


def find_changed_samples(
    metric: Metric, before: Table, after: Table, options: MetricOptions
) -> tuple[ChangedSample, ...]:
    """Find the samples whose values changed, the most changed first.

    Args:
        metric: Metric of both tables; one without a value of single samples finds none.
        before: Rows of the original.
        after: Rows of the candidate.
        options: Options of the metric.
    """
    value = metric.get_sample_value()
    scored = np.array([row.size > 0 for row in before.rows], bool)
    if value is None or not scored.any():
        return ()
    with np.errstate(all="ignore"):
        old, new = (value.compute(table.select(scored), options) for table in (before, after))
        losses = old - new if value.higher_is_better else new - old
    changed = np.flatnonzero(np.isfinite(losses) & (losses != 0))
    order = changed[np.argsort(-np.abs(losses[changed]), kind="stable")]
    numbers = np.flatnonzero(scored)
    return tuple(
        ChangedSample(
            number=int(numbers[place]),
            before=float(old[place]),
            after=float(new[place]),
            loss=float(losses[place]),
        )
        for place in order
    )
