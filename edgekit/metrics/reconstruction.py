"""Metric of anomaly detection by the error of a reconstructed input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgekit.metrics.answers import SCORES
from edgekit.metrics.metric import (
    INPUT,
    Aggregate,
    Floats,
    Metric,
    Table,
    TargetReader,
)
from edgekit.metrics.ranking import ORDERED_PAIRS, compute_half, prepare_frame_auc
from edgekit.metrics.row_checks import ANY, FLAG, POSITIVE, check_columns
from edgekit_agent.scoring import MetricOptions

# Relative spread of the moments of outputs below which all outputs are the same.
_SMALLEST_SPREAD = 1e-6


def prepare_error_auc(table: Table, options: MetricOptions) -> Aggregate:
    """Return the area under the ROC curve of the reconstruction error."""
    return prepare_frame_auc(_select_errors(table), options)


def compute_ordered_shares(table: Table, options: MetricOptions) -> Floats:
    """Return the share of pairs of each sample that the error puts in the right order."""
    return ORDERED_PAIRS.compute(_select_errors(table), options)


def _select_errors(table: Table) -> Table:
    """Return the table with the label and the error of each sample alone."""
    return replace(table, rows=tuple(row[:2] for row in table.rows))


def find_constant_output(table: Table, read: TargetReader, options: MetricOptions) -> str:
    """Return why reconstructions are no better than a constant; empty if they are.

    The error of a constant is the distance of the input from it, which can tell anomalies well.
    So the outputs must differ, and the area must exceed that of the best constant.

    Args:
        table: Rows of the scored samples.
        read: Reads the targets and the inputs of all samples.
        options: Options of the metric.
    """
    moments = np.stack([row[2:] for row in table.rows])
    square = np.abs(moments[:, 1]).max()
    limits = _SMALLEST_SPREAD * np.array([np.sqrt(square), square])
    if (np.ptp(moments, axis=0) <= limits).all():
        return (
            f"the reconstructions of all {table.n} samples are the same: check the scored output "
            "and the preprocessing"
        )
    value, best = _compute_area(table, options), _compute_best_constant(read, options)
    if value > best:
        return ""
    return (
        f"the AUC of the reconstruction error is {100 * value:.2f} %, and the distance of the "
        f"input from a constant reaches {100 * best:.2f} %: check the scored output and the "
        "preprocessing"
    )


def _compute_area(table: Table, options: MetricOptions) -> float:
    return float(prepare_error_auc(table, options)(np.ones((1, table.n)))[0])


def _compute_best_constant(read: TargetReader, options: MetricOptions) -> float:
    """Compute the largest area of a constant: zero, or the mean of all or of normal samples.

    An input whose samples differ in size has none.
    """
    areas = [0.5]
    names = {name for each in read() for name in each if name.startswith(INPUT)}
    for name in sorted(names):
        if len({value.shape for _, value in _iter_inputs(read, options, name)}) != 1:
            continue
        rows = [
            [np.array([label, np.mean((value - constant) ** 2)]) for label, value in samples]
            for constant in _compute_constants(read, options, name)
            for samples in [_iter_inputs(read, options, name)]
        ]
        areas += [_compute_area(Table(rows=tuple(each)), options) for each in rows]
    return max(areas)


def _compute_constants(read: TargetReader, options: MetricOptions, name: str) -> list[Floats]:
    """Compute zero, the mean of an input, and its mean over normal samples."""
    sums, counts = [np.zeros(()), np.zeros(())], [0, 0]
    for label, value in _iter_inputs(read, options, name):
        sums[label], counts[label] = sums[label] + value, counts[label] + 1
    total = (sums[0] + sums[1]) / max(sum(counts), 1)
    return [np.zeros(()), total, sums[0] / max(counts[0], 1)]


def _iter_inputs(
    read: TargetReader, options: MetricOptions, name: str
) -> Iterator[tuple[int, Floats]]:
    """Yield the label and an input of each sample that is scored."""
    for each in read():
        label = int(each["y"].reshape(-1)[0])
        if label != options.ignore:
            yield label, np.asarray(each[name], np.float64)


METRICS = (
    Metric(
        name="reconstruction-auc",
        title="AUC of the reconstruction error",
        target="0 for a normal sample, 1 for an anomaly",
        prepare=prepare_error_auc,
        compute_trivial=compute_half,
        find_fault=find_constant_output,
        check_rows=check_columns(FLAG, POSITIVE, ANY, POSITIVE, may_be_empty=True),
        sample_value=replace(ORDERED_PAIRS, compute=compute_ordered_shares),
        answers=SCORES,
    ),
)
