"""Metrics of classification."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.metrics.answers import BEST_CLASS, BEST_CLASSES, FRAME_CLASSES, SIDE
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Metric,
    SampleValue,
    Table,
    TargetReader,
    prepare_first_mean,
)
from edgekit.metrics.row_checks import CLASS, FLAG, LABEL, check_columns
from edgekit.metrics.rows import (
    average_defined,
    compute_in_chunks,
    divide,
    read_labels,
    split_rows,
    sum_classes,
)
from edgekit_agent.scoring import MetricOptions


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


def prepare_macro_f1(table: Table, options: MetricOptions) -> Aggregate:
    """Return the mean F1 of the classes that occur, as labels or as predictions."""
    del options
    compute = _prepare_class_f1(table)
    frames = sum(row.size for row in table.rows)
    classes = int(max((row.max(initial=0) for row in table.rows), default=0))
    elements = max(frames, classes)
    return compute_in_chunks(lambda weights: average_defined(compute(weights)), elements)


def compute_correct_shares(table: Table, options: MetricOptions) -> Floats:
    """Return the share of the frames of each sample that are predicted correctly."""
    del options
    halves = (row.reshape(2, -1) for row in table.rows)
    return np.array([np.mean(labels == predicted) for labels, predicted in halves])


def compute_class_f1(table: Table, options: MetricOptions) -> dict[int, float]:
    """Return the F1 of each class that occurs."""
    values = _prepare_class_f1(table)(np.ones((1, table.n)))[0]
    return {number: float(value) for number, value in enumerate(values) if np.isfinite(value)}


def compute_trivial_macro_f1(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the macro F1 of classes that are drawn with their shares, one over their number.

    No other predictor that ignores its input has more, nor has one that always gives one class.
    """
    classes = np.unique(read_labels(read, options)).size
    return 1 / classes if classes else None


def _prepare_class_f1(table: Table) -> Callable[[Floats], Floats]:
    """Return a function of weights [b, n] that computes the F1 [b, classes] of each class."""
    rows = split_rows(table)
    labels, predicted = rows.first.astype(np.int64), rows.second.astype(np.int64)
    classes = int(max(labels.max(initial=0), predicted.max(initial=0))) + 1
    hit = labels == predicted
    sum_hits = sum_classes(labels[hit], rows.owners[hit], classes)
    sum_labels = sum_classes(labels, rows.owners, classes)
    sum_predicted = sum_classes(predicted, rows.owners, classes)

    def compute(weights: Floats) -> Floats:
        return divide(2 * sum_hits(weights), sum_labels(weights) + sum_predicted(weights))

    return compute


METRICS = (
    Metric(
        name="top1",
        title="accuracy",
        target="the class, one integer",
        prepare=prepare_first_mean,
        compute_trivial=compute_largest_share,
        is_proportion=True,
        check_rows=check_columns(FLAG, LABEL),
        answers=BEST_CLASS,
    ),
    Metric(
        name="top5",
        title="top-5 accuracy",
        target="the class, one integer",
        prepare=prepare_first_mean,
        compute_trivial=compute_five_largest_shares,
        is_proportion=True,
        check_rows=check_columns(FLAG, LABEL),
        answers=BEST_CLASSES,
    ),
    Metric(
        name="binary",
        title="accuracy",
        target="0 or 1",
        prepare=prepare_first_mean,
        compute_trivial=compute_largest_share,
        is_proportion=True,
        check_rows=check_columns(FLAG, FLAG),
        answers=SIDE,
    ),
    Metric(
        name="macro-f1",
        title="macro F1",
        target="the class: one integer, or one for each frame or pixel",
        prepare=prepare_macro_f1,
        compute_trivial=compute_trivial_macro_f1,
        compute_classes=compute_class_f1,
        reads_probabilities=True,
        check_rows=check_columns(CLASS, CLASS, layout="columns", may_be_empty=True),
        sample_value=SampleValue(
            compute=compute_correct_shares, title="correct frames", is_share=True
        ),
        answers=FRAME_CLASSES,
    ),
)
