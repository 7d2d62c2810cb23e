"""Metrics of agreement with the original, for samples without labels."""

from __future__ import annotations

import numpy as np

from edgekit.metrics.answers import PLACE_OF_ORIGINAL, VALUES_OF_ORIGINAL
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Margin,
    Metric,
    Table,
    TargetReader,
    build_sums_value,
    prepare_first_mean,
)
from edgekit.metrics.row_checks import ANY, FLAG, LABEL, POSITIVE, check_columns
from edgekit_agent.scoring import MetricOptions


def prepare_cosine(table: Table, options: MetricOptions) -> Aggregate:
    """Return the cosine of outputs and originals, of the output where it is smallest."""
    del options
    rows = table.stack()
    return lambda weights: _compute_cosines(weights @ rows)


def _compute_cosines(rows: Floats) -> Floats:
    """Return the smallest cosine of each row of sums."""
    sums = rows.reshape(len(rows), -1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = sums[..., 2] / np.sqrt(sums[..., 0] * sums[..., 1])
    # Two outputs of zeros are equal; a single one of zeros has nothing of the other.
    silent = (sums[..., 0] == 0) & (sums[..., 1] == 0)
    worst: Floats = np.where(silent, 1.0, np.nan_to_num(cosines)).min(axis=1)
    return worst


def prepare_rms(table: Table, options: MetricOptions) -> Aggregate:
    """Return the root of the mean square difference relative to that of the original, the worst."""
    del options
    rows = table.stack()
    return lambda weights: _compute_errors(weights @ rows)


def _compute_errors(rows: Floats) -> Floats:
    """Return the largest relative error of each row of sums."""
    sums = rows.reshape(len(rows), -1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(sums[..., 0] / sums[..., 1])
    worst: Floats = np.where(sums[..., 0] == 0, 0.0, errors).max(axis=1)
    return worst


def compute_most_common_place(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the share of the class that the original predicts most often."""
    places = [int(_get_scores(targets, options).argmax()) for targets in read()]
    return float(np.bincount(places).max() / len(places))


def compute_mean_cosine(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the cosine of the original's outputs with their mean, the worst output's."""
    del options
    means, squares, n = _sum_outputs(read)
    worst = [
        np.sqrt(np.sum((mean / n) ** 2) * n / squares[name]) if squares[name] else 1.0
        for name, mean in means.items()
    ]
    return float(min(worst))


def compute_mean_rms(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the relative error of the mean of the original's outputs, the worst output's."""
    del options
    means, squares, n = _sum_outputs(read)
    worst = [
        np.sqrt(max(1 - np.sum((mean / n) ** 2) * n / squares[name], 0.0)) if squares[name] else 0.0
        for name, mean in means.items()
    ]
    return float(max(worst))


def _get_scores(targets: object, options: MetricOptions) -> Floats:
    arrays = dict(targets)  # type: ignore[call-overload]
    name = options.output or next(iter(arrays))
    scores: Floats = np.asarray(arrays[name], np.float64)
    return scores


def _sum_outputs(read: TargetReader) -> tuple[dict[str, Floats], dict[str, float], int]:
    """Sum the outputs of all samples, and their squares, by name."""
    sums: dict[str, Floats] = {}
    squares: dict[str, float] = {}
    n = 0
    for targets in read():
        n += 1
        for name, value in targets.items():
            row = np.asarray(value, np.float64)
            sums[name] = sums[name] + row if name in sums else row
            squares[name] = squares.get(name, 0.0) + float(np.sum(row * row))
    return sums, squares, n


METRICS = (
    Metric(
        name="agreement",
        title="agreement with the original",
        target="none: the outputs of the original are the targets",
        prepare=prepare_first_mean,
        compute_trivial=compute_most_common_place,
        is_proportion=True,
        compares_outputs=True,
        check_rows=check_columns(FLAG, LABEL),
        answers=PLACE_OF_ORIGINAL,
    ),
    Metric(
        name="output-cosine",
        title="cosine with the original's outputs",
        target="none: the outputs of the original are the targets",
        prepare=prepare_cosine,
        compute_trivial=compute_mean_cosine,
        compares_outputs=True,
        check_rows=check_columns(POSITIVE, POSITIVE, ANY, layout="rows", have_equal_sizes=True),
        sample_value=build_sums_value(_compute_cosines, "cosine", higher_is_better=True),
        answers=VALUES_OF_ORIGINAL,
    ),
    Metric(
        name="output-rms",
        title="error relative to the original's outputs",
        target="none: the outputs of the original are the targets",
        prepare=prepare_rms,
        compute_trivial=compute_mean_rms,
        higher_is_better=False,
        margin=Margin(value=10.0),
        compares_outputs=True,
        check_rows=check_columns(POSITIVE, POSITIVE, layout="rows", have_equal_sizes=True),
        sample_value=build_sums_value(_compute_errors, "relative error"),
        answers=VALUES_OF_ORIGINAL,
    ),
)
