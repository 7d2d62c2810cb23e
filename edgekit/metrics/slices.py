"""Paired comparison of original and candidate on slices of the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.metrics.intervals.loss_limits import limit_by_bootstrap, limit_proportions
from edgekit.metrics.intervals.paired_tables import Unit, count_changes, pair_tables
from edgekit.metrics.metric import Margin, Metric, Table
from edgekit_agent.scoring import MetricOptions

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class SliceComparison:
    """Loss of a candidate on the samples of one slice.

    Attributes:
        n: Number of scored samples.
        before: Value of the original; ``None`` = undefined on this slice.
        after: Value of the candidate; ``None`` = undefined on this slice.
        unit: Unit of the losses.
        drop: Loss; ``None`` if one of the values is undefined.
        interval: Two-sided 95 % confidence interval of the loss; ``None`` if there is none.
    """

    n: int
    before: float | None
    after: float | None
    unit: Unit
    drop: float | None
    interval: tuple[float, float] | None


def compare_slices(
    metric: Metric,
    before: Table,
    after: Table,
    *,
    slices: Mapping[str, NDArray[Any]],
    options: MetricOptions,
    margin: Margin | None = None,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> dict[str, SliceComparison]:
    """Compare two models on each slice of the samples: ``name=value`` -> comparison.

    Args:
        metric: Metric of both tables.
        before: Rows of the original.
        after: Rows of the candidate.
        slices: Value of each sample, by the name of the slice column.
        options: Options of the metric.
        margin: Margin that decides the unit of the losses; ``None`` = that of the metric.
        seed: Seed of the resamples.
        resamples: Number of resamples of each slice.

    Raises:
        EdgekitError: The tables or columns are of different samples.
    """
    found = {}
    for name, column in slices.items():
        if column.shape != (before.n,):
            raise EdgekitError(
                f"slice column {name!r} must have one value for each of the {before.n} samples"
            )
        for value in np.unique(column):
            chosen = column == value
            summary = _compare_slice(
                metric,
                before.select(chosen),
                after.select(chosen),
                options,
                margin or metric.margin,
                seed,
                resamples,
            )
            if summary is not None:
                found[f"{name}={value}"] = summary
    return found


def _compare_slice(
    metric: Metric,
    before: Table,
    after: Table,
    options: MetricOptions,
    margin: Margin,
    seed: int,
    resamples: int,
) -> SliceComparison | None:
    if not any(row.size for row in before.rows):
        return None
    pair = pair_tables(metric, before, after, options, margin)
    ones = np.ones((1, pair.before.n))
    values = [float(pair.compute_before(ones)[0]), float(pair.compute_after(ones)[0])]
    drop = float(pair.compute_losses(ones)[0])
    interval = None
    if math.isfinite(drop):
        if pair.uses_tango:
            limits = limit_proportions(count_changes(pair), pair.before.n, margin.value)
        else:
            limits = limit_by_bootstrap(pair, seed, resamples)
        if limits.is_reliable:
            interval = limits.low, limits.high
    return SliceComparison(
        n=pair.before.n,
        before=values[0] if math.isfinite(values[0]) else None,
        after=values[1] if math.isfinite(values[1]) else None,
        unit=pair.unit,
        drop=drop if math.isfinite(drop) else None,
        interval=interval,
    )
