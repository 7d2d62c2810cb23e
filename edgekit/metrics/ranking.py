"""Metrics of the order of scores: AUC, equal error rate and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import CLASS_SCORES
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Metric,
    SampleValue,
    Table,
    TargetReader,
)
from edgekit.metrics.roc import prepare_auc, prepare_eer, prepare_group_auc
from edgekit.metrics.row_checks import ANY, FLAG, check_columns
from edgekit.metrics.rows import (
    Indices,
    accumulate,
    compute_in_chunks,
    divide,
    gather_weights,
    split_rows,
)
from edgekit_agent.scoring import MetricOptions

# Up to this many groups, their pairs are counted once.
_MOST_GROUPS = 500
# Reassignments of targets to groups, and the share of them that may be as good as the data.
_REASSIGNMENTS, _LEVEL = 400, 0.05


def prepare_frame_auc(table: Table, options: MetricOptions) -> Aggregate:
    """Return the area under the ROC curve of all frames."""
    del options
    rows = split_rows(table)
    if table.groups is not None and rows.owners.size:
        _, groups = np.unique(table.groups[rows.owners], return_inverse=True)
        if groups.max() < _MOST_GROUPS:
            return prepare_group_auc(rows.first == 1, rows.second, groups, rows.owners)
    return prepare_auc(rows.first == 1, rows.second, (rows.owners,))


def compute_ordered_shares(table: Table, options: MetricOptions) -> Floats:
    """Return the share of pairs of each sample with those of the other class in the right order.

    Equal scores count one half. With several frames it is their mean. The mean over the samples of
    one class is the AUC.
    """
    del options
    rows = split_rows(table)
    positive = rows.first == 1
    scores = np.where(positive, rows.second, -rows.second)
    shares = np.full(scores.shape, np.nan)
    for mine in (positive, ~positive):
        others = np.sort(-scores[~mine])
        below = np.searchsorted(others, scores[mine], side="left")
        not_above = np.searchsorted(others, scores[mine], side="right")
        shares[mine] = divide((below + not_above).astype(np.float64), np.array(2.0 * others.size))
    return divide(
        np.bincount(rows.owners, shares, minlength=table.n).astype(np.float64),
        np.bincount(rows.owners, minlength=table.n).astype(np.float64),
    )


def prepare_frame_eer(table: Table, options: MetricOptions) -> Aggregate:
    """Return the equal error rate of all frames."""
    del options
    rows = split_rows(table)
    return prepare_eer(rows.first == 1, rows.second, (rows.owners,))


def prepare_spearman(table: Table, options: MetricOptions) -> Aggregate:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    Constant predictions have correlation 0; it is undefined (NaN) for constant targets.
    """
    del options
    rows = split_rows(table)
    targets, values = _Ranking(rows.first, rows.owners), _Ranking(rows.second, rows.owners)

    def compute(weights: Floats) -> Floats:
        mine = gather_weights(weights, (rows.owners,))
        of_targets, of_values = targets.rank(weights), values.rank(weights)
        covariance = (mine * of_targets * of_values).sum(axis=1)
        target_spread = (mine * of_targets**2).sum(axis=1)
        value_spread = (mine * of_values**2).sum(axis=1)
        found = divide(covariance, np.sqrt(target_spread * value_spread))
        return np.where((value_spread == 0) & (target_spread > 0), 0.0, found)

    return compute_in_chunks(compute, rows.first.size)


class _Ranking:
    """Ranks of fixed values for any weights."""

    def __init__(self, values: Floats, owners: Indices) -> None:
        order = np.argsort(values, kind="stable")
        self._owners = (owners[order],)
        self._lower = np.searchsorted(values[order], values, side="left")
        self._upper = np.searchsorted(values[order], values, side="right")

    def rank(self, weights: Floats) -> Floats:
        """Return twice the mean ranks [b, m], less their mean."""
        below = accumulate(gather_weights(weights, self._owners))
        ranks: Floats = np.take(below, self._lower, axis=1) + np.take(below, self._upper, axis=1)
        return ranks - below[:, -1:]


def compute_half(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the AUC and the equal error rate of constant scores."""
    del read, options
    return 0.5


def compute_zero(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the rank correlation of constant predictions."""
    del read, options
    return 0.0


def prepare_group_test(
    prepare: Callable[[Table, MetricOptions], Aggregate], *, higher_is_better: bool
) -> Callable[[Table, MetricOptions], str]:
    """Return the ``find_chance`` of groups whose samples all have the same target.

    Such groups are as few observations as there are groups, for which the bootstrap is too narrow:
    it takes the chance order of ten groups for a good one in 10 to 20 % of the cases. So the value
    must exceed all but 5 % of those with the targets of the groups exchanged (permutation test).

    Args:
        prepare: ``prepare`` of the metric.
        higher_is_better: Direction of the metric.
    """
    sign = 1.0 if higher_is_better else -1.0

    def compute(table: Table, options: MetricOptions) -> float:
        return sign * float(prepare(table, options)(np.ones((1, table.n)))[0])

    def find_chance(table: Table, options: MetricOptions) -> str:
        groups, targets = _find_group_targets(table)
        if not 1 < targets.size < min(_MOST_GROUPS, table.n):
            return ""
        value = compute(table, options) - 1e-12
        found = [
            compute(_replace_targets(table, each[groups]), options)
            for each in _iter_reassignments(targets)
        ]
        share = float(np.mean([each >= value for each in found]))
        if share <= _LEVEL:
            return ""
        return (
            f"the samples of each of the {targets.size} groups have the same target, and "
            f"{100 * share:.0f} % of the ways to exchange the targets of the groups give a value "
            "as good as that of the original, which may be chance: use more groups"
        )

    return find_chance


def _find_group_targets(table: Table) -> tuple[Indices, Floats]:
    """Return the group of each sample and the target of each group, if all groups have only one."""
    none = np.empty(0, np.int64), np.empty(0)
    if table.groups is None:
        return none
    _, groups = np.unique(table.groups, return_inverse=True)
    lowest = np.full(groups.max() + 1, np.inf)
    highest = -lowest
    rows = split_rows(table)
    np.minimum.at(lowest, groups[rows.owners], rows.first)
    np.maximum.at(highest, groups[rows.owners], rows.first)
    return (groups, lowest) if np.array_equal(lowest, highest) else none


def _iter_reassignments(targets: Floats) -> Iterable[NDArray[np.float64]]:
    """Yield targets in other orders: all of them if they are few, else random ones."""
    if math.factorial(targets.size) <= 2 * _REASSIGNMENTS:
        return (np.array(each) for each in permutations(targets))
    random = np.random.default_rng(0)
    return [targets, *(random.permutation(targets) for _ in range(_REASSIGNMENTS))]


def _replace_targets(table: Table, targets: Floats) -> Table:
    """Return a table with one target for all frames of a sample."""
    rows = tuple(
        np.concatenate([np.full(row.size // 2, target), row[row.size // 2 :]])
        for row, target in zip(table.rows, targets, strict=True)
    )
    return replace(table, rows=rows)


ORDERED_PAIRS = SampleValue(
    compute=compute_ordered_shares, title="pairs in the right order", is_share=True
)

METRICS = (
    Metric(
        name="auc",
        title="AUC",
        target="0 or 1, or one of them for each frame",
        prepare=prepare_frame_auc,
        compute_trivial=compute_half,
        find_chance=prepare_group_test(prepare_frame_auc, higher_is_better=True),
        reads_probabilities=True,
        check_rows=check_columns(FLAG, ANY, layout="columns", may_be_empty=True),
        sample_value=ORDERED_PAIRS,
        answers=CLASS_SCORES,
    ),
    Metric(
        name="eer",
        title="equal error rate",
        target="0 or 1, or one of them for each frame",
        prepare=prepare_frame_eer,
        compute_trivial=compute_half,
        find_chance=prepare_group_test(prepare_frame_eer, higher_is_better=False),
        higher_is_better=False,
        reads_probabilities=True,
        check_rows=check_columns(FLAG, ANY, layout="columns", may_be_empty=True),
        sample_value=ORDERED_PAIRS,
        answers=CLASS_SCORES,
    ),
    Metric(
        name="spearman",
        title="rank correlation",
        target="numbers in the shape of the output",
        prepare=prepare_spearman,
        compute_trivial=compute_zero,
        find_chance=prepare_group_test(prepare_spearman, higher_is_better=True),
        check_rows=check_columns(ANY, ANY, layout="columns", may_be_empty=True),
    ),
)
