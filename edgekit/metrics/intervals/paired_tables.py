"""Scored rows of two models on the same samples, and the loss between their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.errors import EdgekitError, UserError
from edgekit.metrics.metric import Aggregate, Floats, Margin, Metric, Table
from edgekit_agent.scoring import MetricOptions

# Unit of losses: points of a share, percent of the value of the original, or that of the metric.
Unit = Literal["points", "%", ""]


def get_unit(metric: Metric, margin: Margin) -> Unit:
    """Return the unit of the losses by a metric with a margin."""
    if margin.relative:
        return "%"
    return "points" if metric.is_share else ""


@dataclass(frozen=True, kw_only=True)
class PairedTables:
    """Scored samples of both models, and how the loss is computed from their values."""

    metric: Metric
    before: Table
    after: Table
    compute_before: Aggregate
    compute_after: Aggregate
    margin: Margin

    @property
    def unit(self) -> Unit:
        """Return the unit of the losses."""
        return get_unit(self.metric, self.margin)

    @property
    def groups(self) -> int:
        """Return the number of independent groups."""
        groups = self.before.groups
        return self.before.n if groups is None else int(np.unique(groups).size)

    @property
    def uses_tango(self) -> bool:
        """Return whether the losses are differences of proportions of independent samples."""
        is_independent = self.groups == self.before.n
        return self.metric.is_proportion and is_independent and not self.margin.relative

    def compute_losses(self, weights: Floats) -> Floats:
        """Compute the losses [b] for weights [b, n] of the samples."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.convert(self.compute_before(weights), self.compute_after(weights))

    def convert(self, before: Floats, after: Floats) -> Floats:
        """Convert values to losses in the unit of the margin."""
        return convert_loss(self.metric, self.margin, before, after)


def convert_loss(metric: Metric, margin: Margin, before: Floats, after: Floats) -> Floats:
    """Convert the values of two models to the losses from one to the other.

    Args:
        metric: The metric.
        margin: Margin in whose unit the loss is.
        before: Values of the original.
        after: Values of the other model.
    """
    losses = before - after if metric.higher_is_better else after - before
    if margin.relative:
        return np.asarray(100 * losses / np.abs(before))
    return 100 * losses if metric.is_share else losses


def pair_tables(
    metric: Metric, before: Table, after: Table, options: MetricOptions, margin: Margin
) -> PairedTables:
    """Leave out the samples that are not scored, and prepare the aggregates.

    Raises:
        EdgekitError: The tables are of different samples.
        UserError: No sample is scored.
    """
    scored = [row.size > 0 for row in before.rows]
    if scored != [row.size > 0 for row in after.rows] or not _have_same_groups(before, after):
        raise EdgekitError("only tables of the same samples and metric can be compared")
    if not any(scored):
        raise UserError(
            f"no sample is scored by metric {metric.name}: every target is ignored",
            hint="check the targets, and ignore in [data.metric_options]",
        )
    chosen = np.array(scored)
    before, after = before.select(chosen), after.select(chosen)
    return PairedTables(
        metric=metric,
        before=before,
        after=after,
        compute_before=_allow_undefined(metric.prepare(before, options)),
        compute_after=_allow_undefined(metric.prepare(after, options)),
        margin=margin,
    )


def _allow_undefined(compute: Aggregate) -> Aggregate:
    """Return the aggregate without warnings of numpy about values that are undefined."""

    def compute_quietly(weights: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return compute(weights)

    return compute_quietly


def _have_same_groups(before: Table, after: Table) -> bool:
    if before.groups is None or after.groups is None:
        return before.groups is after.groups
    return np.array_equal(before.groups, after.groups)


def count_changes(pair: PairedTables) -> tuple[int, int, int]:
    """Count samples that only the original, only the candidate predicts correctly, and flips."""
    before, after = pair.before.stack(), pair.after.stack()
    old, new = before[:, 0] == 1, after[:, 0] == 1
    flips = (before[:, 1:] != after[:, 1:]).any(axis=1) if before.shape[1] > 1 else old != new
    return int((old & ~new).sum()), int((new & ~old).sum()), int(flips.sum())


def are_identical(before: Table, after: Table) -> bool:
    """Return whether all rows are equal."""
    return all(map(np.array_equal, before.rows, after.rows))
