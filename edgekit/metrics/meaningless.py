"""Detection of originals that do not beat a constant by their metric, so that no gate may pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekit.metrics.intervals.bootstrap import resample_losses
from edgekit.metrics.metric import Aggregate, Floats, Metric, Table, TargetReader
from edgekit_agent.scoring import MetricOptions

_LEVEL = 0.05
_RESAMPLES = 1000
# Of fewer targets, even a perfect value may be chance: 1 of 20 random orders of 6 has an AUC of 1.
_FEWEST_VALUES = 6


def find_meaningless(
    metric: Metric, table: Table, read_targets: TargetReader, options: MetricOptions
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
    with np.errstate(all="ignore"):
        value = metric.compute_value(scored, options)
    if not math.isfinite(value):
        return (
            f"{metric.name} of the original is undefined on these {scored.n} samples: check that "
            "the targets vary, and that every class occurs"
        )
    mismatched = metric.prepare_mismatched(scored) if metric.prepare_mismatched else None
    if mismatched is not None:
        other = float(mismatched(np.ones((1, scored.n)))[0])
        if _is_better(metric, scored, options, value, other, mismatched):
            return ""
        return _explain_mismatched(metric, scored, value, other)
    if trivial is None:
        return _explain_constant(metric, scored) if _is_constant(metric, scored, options) else ""
    if not math.isfinite(trivial) or _is_better(metric, scored, options, value, trivial):
        return "" if _has_enough_values(read_targets) else _explain_few(metric, scored, value)
    return _explain_trivial(metric, scored, value, trivial)


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


def _is_better(
    metric: Metric,
    table: Table,
    options: MetricOptions,
    value: float,
    trivial: float,
    compute_trivial: Aggregate | None = None,
) -> bool:
    """Return whether the original is significantly better than the trivial predictor.

    A value that is known of all samples together alone is only compared.
    """
    sign = 1 if metric.higher_is_better else -1
    if sign * (value - trivial) <= 1e-12 * abs(trivial):
        return False
    if metric.find_blocks is not None:
        return True
    groups = table.groups
    if groups is not None and np.unique(groups).size in (1, table.n):
        groups = None
    if metric.is_proportion and groups is None:
        hits = round(value * table.n)
        return hits == table.n or compute_binomial_tail(hits, table.n, trivial) <= _LEVEL
    prepared = metric.prepare(table, options)

    def compute_gains(weights: Floats) -> Floats:
        with np.errstate(all="ignore"):
            other = trivial if compute_trivial is None else compute_trivial(weights)
            gains: Floats = sign * (prepared(weights) - other)
            return gains

    found = resample_losses(compute_gains, table.n, groups, seed=0, resamples=_RESAMPLES)
    return found.compute_bound(_LEVEL) > 0


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


def _explain_few(metric: Metric, table: Table, value: float) -> str:
    return (
        f"{metric.name} of the original is {_format_value(metric, value)} on {table.n} samples, "
        f"which may be chance: use {_FEWEST_VALUES} samples or more"
    )


def _explain_constant(metric: Metric, table: Table) -> str:
    return (
        f"the statistic of {metric.name} is the same for all {table.n} samples: check that the "
        "metric reads the right output and target, and that the output depends on the input"
    )


def _explain_trivial(metric: Metric, table: Table, value: float, trivial: float) -> str:
    shown, constant = (_format_value(metric, each) for each in (value, trivial))
    reason = (
        f"{metric.name} of the original is {shown} on {table.n} samples, not significantly better "
        f"than {constant}, which a predictor that ignores its input reaches"
    )
    checks = "that targets belong to samples, their order and the preprocessing"
    if metric.is_proportion and table.rows[0].size > 1:
        predicted = table.stack()[:, 1:]
        if _are_equal(list(predicted)):
            reason += f"; it always predicts class {predicted[0][0]:g}"
            checks += ", and the scored output"
    return f"{reason}: check {checks}, or use more samples"


def _explain_mismatched(metric: Metric, table: Table, value: float, other: float) -> str:
    shown, mixed = (_format_value(metric, each) for each in (value, other))
    return (
        f"{metric.name} of the original is {shown} on {table.n} samples, not significantly better "
        f"than {mixed}, its value with the targets of other samples: check that the targets are "
        "real and belong to the samples, and whether lower is better; use more samples, or set "
        "uses_targets = False on a function that reads the outputs alone"
    )


def _format_value(metric: Metric, value: float) -> str:
    return f"{100 * value:.2f} %" if metric.is_share else f"{value:.5g}"
