"""Metrics of multi-label classification: means over classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.metrics.answers import PRESENT_CLASSES
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Metric,
    SampleValue,
    Table,
    TargetReader,
)
from edgekit.metrics.row_checks import ANY, FLAG, Range, check_columns
from edgekit.metrics.rows import (
    accumulate,
    average_defined,
    compute_in_chunks,
    divide,
    prepare_sums_to,
)
from edgekit_agent.scoring import MetricOptions

# Values [b, classes] for weights [b, n].
ByClass = Callable[[Floats], Floats]


def prepare_average_precision(table: Table) -> ByClass:
    """Return the average precision of each class; NaN of a class without positives.

    The sum over thresholds of precision times the increase of recall, without interpolation; equal
    scores are on the same side of a threshold.
    """
    present, scores = np.split(table.stack(), 2, axis=1)
    classes = [_prepare_class(*columns) for columns in zip(present.T, scores.T, strict=True)]
    return lambda weights: np.stack([compute(weights) for compute in classes], axis=1)


def _prepare_class(present: Floats, scores: Floats) -> Callable[[Floats], Floats]:
    known = np.flatnonzero(present >= 0)
    order = known[np.argsort(-scores[known], kind="stable")]
    positives = np.flatnonzero(present[order] == 1)
    falling = -scores[order]
    # Elements, and positives among them, down to the score of each positive.
    elements = np.searchsorted(falling, falling[positives], side="right")
    hits = np.searchsorted(positives, elements, side="left")
    sum_elements = prepare_sums_to(elements)

    def compute(weights: Floats) -> Floats:
        mine = np.take(weights, order, axis=1)
        gains = np.take(mine, positives, axis=1)
        found = np.take(accumulate(gains), hits, axis=1)
        precisions = divide(found, sum_elements(mine))
        total = np.where(gains > 0, gains * precisions, 0.0).sum(axis=1)
        return divide(total, gains.sum(axis=1))

    return compute


def prepare_f1(table: Table) -> ByClass:
    """Return the F1 of each class; NaN of a class that is neither present nor predicted."""
    present, predicted = np.split(table.stack(), 2, axis=1)
    known = present >= 0
    hits = ((present == 1) & (predicted == 1)).astype(np.float64)
    both = np.where(known, present + predicted, 0.0)
    return lambda weights: divide(2 * (weights @ hits), weights @ both)


def compute_sample_f1(table: Table, options: MetricOptions) -> Floats:
    """Return the F1 of the classes of each sample; NaN of one without any."""
    del options
    present, predicted = np.split(table.stack(), 2, axis=1)
    hits = ((present == 1) & (predicted == 1)).sum(axis=1)
    both = np.where(present >= 0, present + predicted, 0.0).sum(axis=1)
    return divide(2.0 * hits, both)


def compute_random_precision(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the expected mean average precision of scores in random order.

    It is above that of constant scores, the mean share of positives.
    """
    positives, known = _count_classes(read, options)
    # Of n samples in random order, the one at place k has (m - 1) (k - 1) / (n - 1) positives
    # before it if it is one of the m positives itself; precision is averaged over k.
    places = np.arange(1, int(known.max(initial=0)) + 1)
    harmonic = np.append(0.0, np.cumsum(1 / places))[known.astype(np.int64)]
    first = divide(harmonic, known)
    others = divide(positives - 1, np.maximum(known - 1, 1))
    return float(average_defined(np.where(positives > 0, others * (1 - first) + first, np.nan)))


def compute_constant_f1(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the mean F1 of a predictor that gives every class that occurs."""
    shares = _compute_shares(read, options)
    return float(average_defined(np.where(shares > 0, 2 * shares / (1 + shares), np.nan)))


def _compute_shares(read: TargetReader, options: MetricOptions) -> Floats:
    """Compute the share of samples with each class, of those in which it is known."""
    return divide(*_count_classes(read, options))


def _count_classes(read: TargetReader, options: MetricOptions) -> tuple[Floats, Floats]:
    """Count the samples with each class, and those in which it is known."""
    positives, known = np.zeros(1), np.zeros(1)
    for targets in read():
        present = np.asarray(targets["y"]).reshape(-1)
        is_known = present != options.ignore
        positives = positives + np.where(is_known, present, 0)
        known = known + is_known
    return positives, known


def _average(prepare: Callable[[Table], ByClass]) -> Callable[[Table, MetricOptions], Aggregate]:
    def prepare_mean(table: Table, options: MetricOptions) -> Aggregate:
        del options
        compute = prepare(table)
        return compute_in_chunks(lambda weights: average_defined(compute(weights)), table.n)

    return prepare_mean


def _list_classes(
    prepare: Callable[[Table], ByClass],
) -> Callable[[Table, MetricOptions], dict[int, float]]:
    def compute_classes(table: Table, options: MetricOptions) -> dict[int, float]:
        del options
        values = prepare(table)(np.ones((1, table.n)))[0]
        return {number: float(value) for number, value in enumerate(values) if np.isfinite(value)}

    return compute_classes


# 1, 0, or -1 where it is not known.
_PRESENCE = Range(low=-1, high=1, is_whole=True)

METRICS = (
    Metric(
        name="multilabel-map",
        title="mean average precision",
        target="0 or 1 for each class",
        prepare=_average(prepare_average_precision),
        compute_trivial=compute_random_precision,
        compute_classes=_list_classes(prepare_average_precision),
        reads_probabilities=True,
        check_rows=check_columns(_PRESENCE, ANY, layout="columns", have_equal_sizes=True),
    ),
    Metric(
        name="multilabel-f1",
        title="macro F1",
        target="0 or 1 for each class",
        prepare=_average(prepare_f1),
        compute_trivial=compute_constant_f1,
        compute_classes=_list_classes(prepare_f1),
        reads_probabilities=True,
        check_rows=check_columns(_PRESENCE, FLAG, layout="columns", have_equal_sizes=True),
        sample_value=SampleValue(compute=compute_sample_f1, title="F1", is_share=True),
        answers=PRESENT_CLASSES,
    ),
)
