"""Detection of originals that do not beat a constant by their metric, so that no gate may pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgekit.metrics.intervals.bootstrap import resample_losses
from edgekit.metrics.intervals.paired_tables import convert_loss
from edgekit.metrics.metric import Aggregate, Floats, Margin, Metric, Table, TargetReader
from edgekit_agent.scoring import MetricOptions

_LEVEL = 0.05
_RESAMPLES = 1000
# Of fewer targets, even a perfect value may be chance: 1 of 20 random orders of 6 has an AUC of 1.
_FEWEST_VALUES = 6


def find_uninformative(
    metric: Metric,
    table: Table,
    read_targets: TargetReader,
    options: MetricOptions,
    *,
    before: float,
    trivial: float | None,
    margin: Margin,
) -> str:
    """Return why a candidate within the margin may predict nothing; empty if it does not.

    A margin can be so wide that the best predictor that ignores its input is within it. Then the
    candidate itself must be significantly better than that one.

    Args:
        metric: Metric of the table.
        table: Rows of the candidate.
        read_targets: Reads the targets of all samples.
        options: Options of the metric.
        before: Value of the original.
        trivial: Value of the best predictor that ignores its input.
        margin: Largest loss that counts as none.
    """
    if trivial is not None:
        values = np.array([before]), np.array([trivial])
        with np.errstate(all="ignore"):
            is_within = bool((convert_loss(metric, margin, *values) <= margin.value).all())
        if not is_within and metric.find_fault is None:
            return ""
    elif not metric.companions:
        return ""
    return find_meaningless(metric, table, read_targets, options, model="the candidate")


def find_meaningless(
    metric: Metric,
    table: Table,
    read_targets: TargetReader,
    options: MetricOptions,
    *,
    model: str = "the original",
    level: float = _LEVEL,
) -> str:
    """Return why the value of the original is meaningless, and what to check; empty if it is not.

    The original must be significantly better (one-sided, 95 %) than the best predictor that ignores
    its input: by the exact binomial test for proportions of independent samples, else by the
    bootstrap of the groups. A perfect value passes if the targets vary. A metric without such a
    predictor is judged by its value with the targets of other samples, else by whether its
    statistic varies.

    Args:
        metric: Metric of the table.
        table: Rows of the original.
        read_targets: Reads the targets of all samples.
        options: Options of the metric.
        model: The model that is judged, for the text.
        level: Level of the test.
    """
    scored = table.select(np.array([row.size > 0 for row in table.rows], bool))
    if scored.n < 2:
        return (
            f"{scored.n} of {table.n} samples are scored by {metric.name}, and two or more are "
            "needed: check the ignored label and the targets"
        )
    trivial = metric.compute_trivial(read_targets, options)
    if trivial is not None and _are_targets_constant(read_targets):
        return (
            f"all targets are the same, so that {metric.name} is that of a constant: check that "
            "the data has real targets, and samples of every kind"
        )
    judged = _Judged(metric=metric, table=scored, options=options, model=model, level=level)
    if not math.isfinite(judged.value):
        return (
            f"{metric.name} of {model} is undefined on these {scored.n} samples: check that "
            "the targets vary, and that every class occurs"
        )
    mismatched = metric.prepare_mismatched(scored) if metric.prepare_mismatched else None
    if mismatched is not None:
        other = float(mismatched(np.ones((1, scored.n)))[0])
        return "" if judged.is_better(other, mismatched) else _explain_mismatched(judged, other)
    if metric.companions:
        return _judge_companions(judged, read_targets)
    if trivial is None:
        return _explain_constant(judged) if _is_constant(metric, scored, options) else ""
    if math.isfinite(trivial) and not judged.is_better(trivial):
        return _explain_trivial(judged, trivial)
    if not _has_enough_values(read_targets):
        return _explain_few(judged)
    chance = metric.find_chance(scored, options) if metric.find_chance else ""
    if chance:
        return f"{judged.describe_value()}: {chance}"
    return metric.find_fault(scored, read_targets, options) if metric.find_fault else ""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Model that is compared with a predictor that ignores its input.

    Attributes:
        metric: Metric of the table.
        table: Rows of the scored samples.
        options: Options of the metric.
        model: The model, for texts.
        level: Level of the test.
    """

    metric: Metric
    table: Table
    options: MetricOptions
    model: str
    level: float

    @cached_property
    def value(self) -> float:
        """Return the value of all samples."""
        with np.errstate(all="ignore"):
            return self.metric.compute_value(self.table, self.options)

    def format_value(self, value: float) -> str:
        """Format a value of the metric."""
        return f"{100 * value:.2f} %" if self.metric.is_share else f"{value:.5g}"

    def describe_value(self) -> str:
        """Describe the value of the model."""
        value = self.format_value(self.value)
        return f"{self.metric.name} of {self.model} is {value} on {self.table.n} samples"

    def is_better(self, trivial: float, compute_trivial: Aggregate | None = None) -> bool:
        """Return whether the model is significantly better than the trivial predictor.

        A value that is known of all samples together alone is only compared.

        Args:
            trivial: Value of the trivial predictor.
            compute_trivial: Computes its values on resamples; ``None`` = it is the same on all.
        """
        metric, table = self.metric, self.table
        sign = 1 if metric.higher_is_better else -1
        if sign * (self.value - trivial) <= 1e-12 * abs(trivial):
            return False
        if metric.find_blocks is not None:
            return True
        groups = table.groups
        if groups is not None and np.unique(groups).size in (1, table.n):
            groups = None
        if metric.is_proportion and groups is None:
            hits = round(self.value * table.n)
            return hits == table.n or compute_binomial_tail(hits, table.n, trivial) <= self.level
        prepared = metric.prepare(table, self.options)

        def compute_gains(weights: Floats) -> Floats:
            with np.errstate(all="ignore"):
                other = trivial if compute_trivial is None else compute_trivial(weights)
                gains: Floats = sign * (prepared(weights) - other)
                return gains

        found = resample_losses(compute_gains, table.n, groups, seed=0, resamples=_RESAMPLES)
        return found.compute_bound(self.level) > 0


def _judge_companions(judged: _Judged, read_targets: TargetReader) -> str:
    """Return why a model does not exceed a constant by any companion; empty if it does."""
    metric = judged.metric
    level = judged.level / len(metric.companions)
    reasons = []
    for each in metric.companions:
        reason = find_meaningless(
            each, judged.table, read_targets, judged.options, model=judged.model, level=level
        )
        if not reason:
            return ""
        reasons.append(reason)
    return f"{metric.name} can be as good for a predictor that ignores its input; {reasons[0]}"


def compute_binomial_tail(successes: int, n: int, share: float) -> float:
    """Compute the probability of at least so many successes of ``n`` (exact)."""
    if successes <= n * share or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    ways = math.lgamma(n + 1) - math.lgamma(successes + 1) - math.lgamma(n - successes + 1)
    failures = n - successes
    term = math.exp(ways + successes * math.log(share) + failures * math.log1p(-share))
    total = 0.0
    for count in range(successes, n + 1):
        total += term
        term *= (n - count) / (count + 1) * share / (1 - share)
        if term < 1e-17 * total:
            break
    return min(total, 1.0)


def _are_targets_constant(read: TargetReader) -> bool:
    """Return whether the target ``y`` of all samples is the same."""
    first = None
    for targets in read():
        y = targets.get("y")
        if y is None:
            return False
        if first is None:
            first = y
        elif not np.array_equal(first, y):
            return False
    return first is not None


def _has_enough_values(read: TargetReader) -> bool:
    """Return whether the targets ``y`` of all samples have enough values to exclude chance."""
    count = 0
    for targets in read():
        count += targets["y"].size if "y" in targets else _FEWEST_VALUES
        if count >= _FEWEST_VALUES:
            return True
    return False


def _is_constant(metric: Metric, table: Table, options: MetricOptions) -> bool:
    """Return whether the value depends on no sample."""
    if metric.find_blocks is None:
        return _are_equal(table.rows)
    blocks = metric.find_blocks(table)
    weights = (blocks[None, :] != np.unique(blocks)[:, None]).astype(np.float64)
    left_out = metric.prepare(table, options)(weights)
    return bool((left_out == metric.compute_value(table, options)).all())


def _are_equal(rows: Sequence[Floats]) -> bool:
    return all(np.array_equal(rows[0], row) for row in rows)


def _explain_few(judged: _Judged) -> str:
    return f"{judged.describe_value()}, which may be chance: use {_FEWEST_VALUES} samples or more"


def _explain_constant(judged: _Judged) -> str:
    return (
        f"the statistic of {judged.metric.name} is the same for all {judged.table.n} samples: "
        "check that the metric reads the right output and target, and that the output depends on "
        "the input"
    )


def _explain_trivial(judged: _Judged, trivial: float) -> str:
    metric, table = judged.metric, judged.table
    reason = (
        f"{judged.describe_value()}, not significantly better than "
        f"{judged.format_value(trivial)}, which a predictor that ignores its input reaches"
    )
    checks = "that targets belong to samples, their order and the preprocessing"
    if metric.is_proportion and table.rows[0].size > 1:
        predicted = table.stack()[:, 1:]
        if _are_equal(list(predicted)):
            reason += f"; it always predicts class {predicted[0][0]:g}"
            checks += ", and the scored output"
    return f"{reason}: check {checks}, or use more samples"


def _explain_mismatched(judged: _Judged, other: float) -> str:
    return (
        f"{judged.describe_value()}, not significantly better than {judged.format_value(other)}, "
        "its value with the targets of other samples: check that the targets are "
        "real and belong to the samples, and whether lower is better; use more samples, or set "
        "uses_targets = False on a function that reads the outputs alone"
    )
