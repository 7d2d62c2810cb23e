"""Metrics of regression: errors over all values of all samples, R2 and cosine."""

from __future__ import annotations

import numpy as np

from edgekit.errors import UserError
from edgekit.metrics.constant_predictors import (
    broadcast_to_target,
    evaluate_predictor,
    fit_mean,
    fit_median,
    read_shapes,
)
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Margin,
    Metric,
    Table,
    TargetReader,
    aggregate_sums,
    build_sums_value,
    prepare_first_mean,
)
from edgekit.metrics.row_checks import ANY, COSINE, COUNT_FROM_1, POSITIVE, check_columns
from edgekit.metrics.rows import divide
from edgekit_agent.scoring import MetricOptions

# Share of the sum of squares below which a variance is a rounding error.
_SMALLEST_VARIANCE = 1e-12


def _divide(sums: Floats) -> Floats:
    return divide(sums[:, 0], sums[:, 1])


def _divide_root(sums: Floats) -> Floats:
    return np.asarray(np.sqrt(_divide(sums)))


def _average_errors(rows: Floats) -> Floats:
    """Return the root of the mean squared error, the first half of each row."""
    return np.asarray(np.sqrt(rows[:, : rows.shape[1] // 2].mean(axis=1)))


prepare_mean = aggregate_sums(_divide)
prepare_root_mean = aggregate_sums(_divide_root)


def prepare_r2(table: Table, options: MetricOptions) -> Aggregate:
    """Return R2: 1 - squared error / variance of the targets.

    With several values per sample it is the mean of the R2 of each value, as in scikit-learn.
    """
    del options
    if len({row.size for row in table.rows}) > 1:
        raise UserError(
            "metric r2 needs targets of one shape, but samples have different numbers of values",
            hint="use rmse or mae",
        )
    errors, targets = np.split(table.stack(), 2, axis=1)
    centered = targets - targets.mean(axis=0)
    squares = centered * centered

    def compute(weights: Floats) -> Floats:
        sums = weights @ centered
        around_zero = weights @ squares
        around_mean = around_zero - sums * sums / weights.sum(axis=1)[:, None]
        around_mean[around_mean <= _SMALLEST_VARIANCE * around_zero] = 0
        return np.asarray((1 - divide(weights @ errors, around_mean)).mean(axis=1))

    return compute


def compute_median_error(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the mean absolute error of the median."""
    predict = broadcast_to_target(fit_median(read))
    return evaluate_predictor("mae", prepare_mean, read, options, predict)


def compute_deviation(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the RMSE of the mean: the standard deviation."""
    predict = broadcast_to_target(fit_mean(read))
    return evaluate_predictor("rmse", prepare_root_mean, read, options, predict)


def compute_relative_deviation(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the relative RMS error of the mean."""
    predict = broadcast_to_target(fit_mean(read))
    return evaluate_predictor("relative-rms", prepare_root_mean, read, options, predict)


def return_zero(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the R2 of the mean, which is 0."""
    del read, options
    return 0.0


def compute_mean_direction(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the mean cosine with the mean direction; with equal values where shapes differ."""
    common = read_shapes(read).common
    direction = np.ones(())
    if common is not None:
        direction = np.zeros(common)
        for targets in read():
            values = np.asarray(targets["y"], np.float64)
            direction += values / (np.sqrt((values * values).sum()) or 1.0)
    predict = broadcast_to_target(direction)
    return abs(evaluate_predictor("cosine", prepare_first_mean, read, options, predict))


METRICS = (
    Metric(
        name="mae",
        title="mean absolute error",
        target="numbers in the shape of the output",
        prepare=prepare_mean,
        compute_trivial=compute_median_error,
        higher_is_better=False,
        is_share=False,
        margin=Margin(value=1.0, relative=True),
        check_rows=check_columns(POSITIVE, COUNT_FROM_1),
        sample_value=build_sums_value(_divide, "mean absolute error"),
    ),
    Metric(
        name="rmse",
        title="RMSE",
        target="numbers in the shape of the output",
        prepare=prepare_root_mean,
        compute_trivial=compute_deviation,
        higher_is_better=False,
        is_share=False,
        margin=Margin(value=1.0, relative=True),
        check_rows=check_columns(POSITIVE, COUNT_FROM_1),
        sample_value=build_sums_value(_divide_root, "RMSE"),
    ),
    Metric(
        name="r2",
        title="R²",
        target="numbers in the shape of the output",
        prepare=prepare_r2,
        compute_trivial=return_zero,
        check_rows=check_columns(POSITIVE, ANY, layout="columns", have_equal_sizes=True),
        sample_value=build_sums_value(_average_errors, "RMSE"),
    ),
    Metric(
        name="relative-rms",
        title="relative RMS error",
        target="numbers in the shape of the output",
        prepare=prepare_root_mean,
        compute_trivial=compute_relative_deviation,
        higher_is_better=False,
        is_share=False,
        margin=Margin(value=1.0, relative=True),
        check_rows=check_columns(POSITIVE, POSITIVE),
        sample_value=build_sums_value(_divide_root, "relative RMS error"),
    ),
    Metric(
        name="cosine",
        title="cosine similarity",
        target="numbers in the shape of the output",
        prepare=prepare_first_mean,
        compute_trivial=compute_mean_direction,
        check_rows=check_columns(COSINE),
    ),
)
