"""Metrics of classification."""

from __future__ import annotations

import numpy as np

from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Metric,
    Table,
    TargetReader,
)
from edgekit_agent.scoring import MetricOptions


def prepare_hits(table: Table, options: MetricOptions) -> Aggregate:
    """Return the share of samples whose first number is 1."""
    del options
    hits = table.stack()[:, 0]

    def compute(weights: Floats) -> Floats:
        shares: Floats = weights @ hits / weights.sum(axis=1)
        return shares

    return compute


def compute_largest_share(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the share of the most common label."""
    return _compute_share(read, 1)


def compute_five_largest_shares(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the share of the five most common labels."""
    return _compute_share(read, 5)


def _compute_share(read: TargetReader, labels: int) -> float | None:
    values = np.concatenate([targets["y"].reshape(-1) for targets in read()])
    counts = np.sort(np.unique(values, return_counts=True)[1])
    return float(counts[-labels:].sum() / values.size)


METRICS = (
    Metric(
        name="top1",
        title="accuracy",
        prepare=prepare_hits,
        compute_trivial=compute_largest_share,
        is_proportion=True,
    ),
    Metric(
        name="top5",
        title="top-5 accuracy",
        prepare=prepare_hits,
        compute_trivial=compute_five_largest_shares,
        is_proportion=True,
    ),
    Metric(
        name="binary",
        title="accuracy",
        prepare=prepare_hits,
        compute_trivial=compute_largest_share,
        is_proportion=True,
    ),
)
