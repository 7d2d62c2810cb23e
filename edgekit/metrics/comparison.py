"""Paired comparison of original and candidate on the same samples, by one metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgekit.metrics.intervals.bootstrap import RESAMPLES
from edgekit.metrics.intervals.loss_limits import (
    Limits,
    limit_by_bootstrap,
    limit_by_jackknife,
    limit_proportions,
)
from edgekit.metrics.intervals.paired_tables import (
    PairedTables,
    Unit,
    are_identical,
    count_changes,
    pair_tables,
)
from edgekit.metrics.metric import Margin, Metric, Table
from edgekit.metrics.slices import SliceComparison
from edgekit_agent.scoring import MetricOptions

# With more values than this in all rows, fewer resamples are drawn, but no less than so many.
_MOST_VALUES, _FEWEST_RESAMPLES = 1_000_000, 1000


@dataclass(frozen=True, kw_only=True)
class ClassValues:
    """Values of original and candidate on one class, in the unit of the metric.

    ``name`` is empty if the data do not name the class.
    """

    number: int
    before: float
    after: float
    name: str = ""

    @property
    def label(self) -> str:
        """Return the name, else the number."""
        return self.name or str(self.number)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Loss of a candidate against the original on the same samples, by one metric.

    Attributes:
        metric: Name of the metric.
        n: Number of scored samples.
        groups: Number of independent groups of samples; ``n`` without a group column.
        before: Value of the original.
        after: Value of the candidate.
        unit: Unit of the losses: percentage points of a share, percent of the original's value, or
            that of the metric ("").
        drop: Loss; positive = the candidate is worse, in the direction of the metric. Infinite
            if it is undefined; ``before`` or ``after`` can then be nan, and ``method`` says why.
        interval: Two-sided 95 % confidence interval of the loss; infinite if there is none.
        worst: One-sided 95 % upper bound of the loss; infinite if there is none.
        margin: Largest loss that counts as none.
        proven: Whether ``worst`` is within the margin (non-inferiority), and the interval is
            reliable.
        needed_samples: Approximate number of samples that would prove it with 80 % power if the
            true loss is the observed one; ``None`` if it is proven, or more would not help.
        method: Method of the interval, for the report.
        lost: Samples that the original alone predicts correctly; ``None`` without such a count.
        won: Samples that the candidate alone predicts correctly.
        flips: Samples whose predictions differ.
        meaningless: Why the value of the original, or of a candidate within a wide margin, is
            meaningless; empty if it is not.
        guards: Comparisons by further metrics.
        slices: Comparisons on slices of the samples, by ``name=value``.
        classes: Values of each class, the largest loss first, for metrics that have them.
        changed: Numbers of the samples whose own values changed, the most changed first; at most
            100.
    """

    metric: str
    n: int
    groups: int
    before: float
    after: float
    unit: Unit
    drop: float
    interval: tuple[float, float]
    worst: float
    margin: float
    proven: bool
    needed_samples: int | None
    method: str
    lost: int | None = None
    won: int | None = None
    flips: int | None = None
    meaningless: str = ""
    guards: tuple[Comparison, ...] = ()
    slices: dict[str, SliceComparison] = field(default_factory=dict)
    classes: tuple[ClassValues, ...] = ()
    changed: tuple[int, ...] = ()


def compare(
    metric: Metric,
    before: Table,
    after: Table,
    *,
    options: MetricOptions,
    margin: Margin | None = None,
    same_model: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two models on the same samples.

    The interval is that of Tango for proportions of independent samples, that of the jackknife for
    a metric that is known of blocks alone, else that of the paired bootstrap of the groups. Samples
    with an empty row are not scored.

    Args:
        metric: Metric of both tables.
        before: Rows of the original.
        after: Rows of the candidate.
        options: Options of the metric.
        margin: Largest loss that counts as none; ``None`` = that of the metric.
        same_model: Whether the candidate is the original. If its rows are identical as well, there
            is nothing to prove.
        seed: Seed of the resamples.
        resamples: Number of resamples.

    Raises:
        EdgekitError: The tables are of different samples.
        UserError: No sample is scored.
    """
    pair = pair_tables(metric, before, after, options, margin or metric.margin)
    ones = np.ones((1, pair.before.n))
    values = float(pair.compute_before(ones)[0]), float(pair.compute_after(ones)[0])
    drop = float(pair.compute_losses(ones)[0]) + 0.0  # no negative zero
    counts = count_changes(pair) if metric.is_proportion else None
    if same_model and are_identical(pair.before, pair.after):
        drop, found = 0.0, Limits(low=0.0, high=0.0, worst=0.0, method="the original itself")
    elif not math.isfinite(drop):
        drop, found = math.inf, _explain_undefined(pair, values)
    elif counts and pair.uses_tango:
        drop = 100 * (counts[0] - counts[1]) / pair.before.n
        found = limit_proportions(counts, pair.before.n, pair.margin.value)
    elif metric.find_blocks:
        found = limit_by_jackknife(pair)
    else:
        found = limit_by_bootstrap(pair, seed, _limit_resamples(resamples, pair))
    proven = found.is_reliable and found.worst <= pair.margin.value
    return Comparison(
        metric=metric.name,
        n=pair.before.n,
        groups=pair.groups,
        before=values[0],
        after=values[1],
        unit=pair.unit,
        drop=drop,
        interval=(found.low, found.high),
        worst=found.worst,
        margin=pair.margin.value,
        proven=proven,
        needed_samples=None if proven else found.needed,
        method=found.method,
        lost=counts[0] if counts else None,
        won=counts[1] if counts else None,
        flips=counts[2] if counts else None,
    )


def _limit_resamples(resamples: int, pair: PairedTables) -> int:
    """Return the number of resamples, fewer for large tables, so that they take minutes at most."""
    size = sum(row.size for row in pair.before.rows)
    return min(resamples, max(_FEWEST_RESAMPLES, resamples * _MOST_VALUES // max(size, 1)))


def _explain_undefined(pair: PairedTables, values: tuple[float, float]) -> Limits:
    """Return infinite limits of a loss that is undefined, and the reason."""
    name = pair.metric.name
    if not math.isfinite(values[0]):
        reason = f"{name} of the original is undefined on these samples"
    elif not math.isfinite(values[1]):
        reason = f"{name} of the candidate is undefined"
    else:
        reason = f"{name} of the original is 0, so that a margin in percent has no meaning"
    return Limits(
        low=-math.inf, high=math.inf, worst=math.inf, method=f"none: {reason}", is_reliable=False
    )
