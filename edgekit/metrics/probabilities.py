"""Metrics of predicted probabilities: log loss and expected calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import FRAME_CLASSES
from edgekit.metrics.metric import (
    Floats,
    Margin,
    Metric,
    TargetReader,
    aggregate_sums,
    build_sums_value,
)
from edgekit.metrics.row_checks import ANY, COUNT_FROM_1, NOT_NEGATIVE, check_columns
from edgekit.metrics.rows import divide, read_labels
from edgekit_agent.metrics.probabilities import BINS
from edgekit_agent.scoring import MetricOptions


def compute_mean_loss(sums: Floats) -> Floats:
    """Return the mean negative log probability of the label, in nats."""
    return divide(sums[:, 0], sums[:, 1])


def compute_calibration_error(sums: Floats) -> Floats:
    """Return the mean gap of accuracy and confidence over bins of confidence (Guo et al. 2017)."""
    return divide(np.abs(sums[:, 1:]).sum(axis=1), sums[:, 0])


def compute_entropy(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the log loss of a predictor that gives the frequencies of the labels."""
    counts = np.unique(read_labels(read, options), return_counts=True)[1]
    if not counts.size:
        return None
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def compute_no_calibration(read: TargetReader, options: MetricOptions) -> float | None:
    """Return ``None``: the frequencies of the labels are calibrated, yet predict nothing."""
    del read, options
    return None


def _are_gaps_possible(rows: Floats) -> NDArray[np.bool_]:
    """Return whether the gaps of each row are those of as many frames as it counts."""
    return np.asarray(np.abs(rows[:, 1:]).sum(axis=1) <= rows[:, 0] * (1 + 1e-9))


METRICS = (
    Metric(
        name="log-loss",
        title="log loss",
        target="the class: one integer, or one for each frame or pixel",
        prepare=aggregate_sums(compute_mean_loss),
        compute_trivial=compute_entropy,
        higher_is_better=False,
        is_share=False,
        margin=Margin(value=1.0, relative=True),
        reads_probabilities=True,
        check_rows=check_columns(NOT_NEGATIVE, COUNT_FROM_1, may_be_empty=True),
        sample_value=build_sums_value(compute_mean_loss, "log loss"),
        answers=FRAME_CLASSES,
    ),
    Metric(
        name="ece",
        title="expected calibration error",
        target="the class: one integer, or one for each frame or pixel",
        prepare=aggregate_sums(compute_calibration_error),
        compute_trivial=compute_no_calibration,
        higher_is_better=False,
        reads_probabilities=True,
        check_rows=check_columns(
            COUNT_FROM_1, *[ANY] * BINS, may_be_empty=True, relation=_are_gaps_possible
        ),
    ),
)
