"""Metrics of predicted probabilities: log loss and expected calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import FRAME_CLASSES, FRAME_VALUES
from edgekit.metrics.metric import (
    Floats,
    Margin,
    Metric,
    TargetReader,
    aggregate_sums,
    build_sums_value,
)
from edgekit.metrics.row_checks import ANY, COUNT, COUNT_FROM_1, NOT_NEGATIVE, check_columns
from edgekit.metrics.rows import divide, read_labels
from edgekit_agent.metrics.probabilities import BINS
from edgekit_agent.scoring import MetricOptions

# A row begins with the numbers of frames and of correct ones, and the sum of the losses.
_FIRST_BIN = 3


def compute_mean_loss(sums: Floats) -> Floats:
    """Return the mean negative log probability of the label, in nats."""
    return divide(sums[:, 0], sums[:, 1])


def compute_calibration_error(sums: Floats) -> Floats:
    """Return the mean gap of accuracy and confidence over bins of confidence (Guo et al. 2017)."""
    return divide(np.abs(sums[:, _FIRST_BIN:]).sum(axis=1), sums[:, 0])


def _divide_correct(sums: Floats) -> Floats:
    return divide(sums[:, 1], sums[:, 0])


def _divide_losses(sums: Floats) -> Floats:
    return divide(sums[:, 2], sums[:, 0])


def compute_entropy(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the log loss of a predictor that gives the frequencies of the labels."""
    counts = np.unique(read_labels(read, options), return_counts=True)[1]
    if not counts.size:
        return None
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def compute_largest_frame_share(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the share of the most common label of all frames."""
    counts = np.unique(read_labels(read, options), return_counts=True)[1]
    return float(counts.max() / counts.sum()) if counts.size else None


def compute_no_calibration(read: TargetReader, options: MetricOptions) -> float | None:
    """Return ``None``: the frequencies of the labels are calibrated, yet predict nothing."""
    del read, options
    return None


def _are_gaps_possible(rows: Floats) -> NDArray[np.bool_]:
    """Return whether the gaps and the correct ones are those of as many frames as a row counts."""
    gaps = np.abs(rows[:, _FIRST_BIN:]).sum(axis=1)
    return np.asarray((gaps <= rows[:, 0] * (1 + 1e-9)) & (rows[:, 1] <= rows[:, 0]))


# What the rows of the calibration error tell of the predictions themselves.
_COMPANIONS = (
    Metric(
        name="accuracy",
        title="accuracy",
        prepare=aggregate_sums(_divide_correct),
        compute_trivial=compute_largest_frame_share,
    ),
    Metric(
        name="log-loss",
        title="log loss",
        prepare=aggregate_sums(_divide_losses),
        compute_trivial=compute_entropy,
        higher_is_better=False,
        is_share=False,
    ),
)


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
            COUNT_FROM_1,
            COUNT,
            NOT_NEGATIVE,
            *[ANY] * BINS,
            may_be_empty=True,
            relation=_are_gaps_possible,
        ),
        companions=_COMPANIONS,
        answers=FRAME_VALUES,
    ),
)
