"""Metrics of segmentation: mean IoU and Dice over the positions of all samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import MASKS
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Metric,
    SampleValue,
    Table,
    TargetReader,
)
from edgekit.metrics.row_checks import COUNT, check_columns, check_dense_size
from edgekit.metrics.rows import average_defined, divide
from edgekit_agent.metrics.segmentation import MOST_CLASSES
from edgekit_agent.scoring import MetricOptions

# Numbers in memory for the classes of each position.
_MOST_COUNTS = 1 << 26
# Shares of a class at a position from which a constant mask of two classes has it there.
_SHARES = tuple(np.linspace(0.02, 0.5, 25))
_SMALLEST_SHARE = 1e-9


def prepare_miou(table: Table, options: MetricOptions) -> Aggregate:
    """Return the mean IoU of the classes that occur in the targets."""
    del options
    rows, classes = _stack_counts(table)
    return lambda weights: _average_iou(_split_counts(weights @ rows, classes))


def prepare_dice(table: Table, options: MetricOptions) -> Aggregate:
    """Return the mean Dice of the classes that occur in the targets, without class 0.

    Class 0 is the background. With two classes it is the Dice of the foreground.
    """
    del options
    rows, classes = _stack_counts(table)
    return lambda weights: _average_dice(_split_counts(weights @ rows, classes))


def compute_class_iou(table: Table, options: MetricOptions) -> dict[int, float]:
    """Return the IoU of each class that occurs in the targets."""
    del options
    return _name_classes(_divide_iou(_sum_counts(table)))


def compute_class_dice(table: Table, options: MetricOptions) -> dict[int, float]:
    """Return the Dice of each class that occurs in the targets."""
    del options
    return _name_classes(_divide_dice(_sum_counts(table)))


def compute_sample_iou(table: Table, options: MetricOptions) -> Floats:
    """Return the mean IoU of each sample alone."""
    del options
    return _average_iou(_split_counts(*_stack_counts(table)))


def compute_sample_dice(table: Table, options: MetricOptions) -> Floats:
    """Return the Dice of each sample alone; NaN of one without foreground."""
    del options
    return _average_dice(_split_counts(*_stack_counts(table)))


def compute_constant_miou(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the mean IoU of the best mask that ignores the input, constant or drawn."""
    return _find_largest(_average_iou, read, options)


def compute_constant_dice(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the Dice of the best mask that ignores the input, constant or drawn."""
    return _find_largest(_average_dice, read, options)


def _stack_counts(table: Table) -> tuple[Floats, int]:
    """Return the rows as one array, with zeros for classes that a row lacks."""
    classes = max(row.size for row in table.rows) // 3
    rows = np.zeros((table.n, 3 * classes))
    for number, row in enumerate(table.rows):
        rows[number, : row.size] = row
    return rows, classes


def _split_counts(sums: Floats, classes: int) -> Floats:
    """Return counts [3, b, classes]: in both masks, in the target, in the output."""
    return np.moveaxis(sums.reshape(-1, classes, 3), -1, 0)


def _sum_counts(table: Table) -> Floats:
    rows, classes = _stack_counts(table)
    return _split_counts(rows.sum(axis=0), classes)


def _divide_iou(counts: Floats) -> Floats:
    """Return the IoU [b, classes]; NaN for classes that do not occur in the targets."""
    both, target, output = counts
    return _divide_present(both, target + output - both, target)


def _divide_dice(counts: Floats) -> Floats:
    both, target, output = counts
    return _divide_present(2 * both, target + output, target)


def _divide_present(numerator: Floats, denominator: Floats, target: Floats) -> Floats:
    return divide(numerator, np.where(target > 0, denominator, 0))


def _average_iou(counts: Floats) -> Floats:
    return average_defined(_divide_iou(counts))


def _average_dice(counts: Floats) -> Floats:
    return average_defined(_divide_dice(counts)[:, 1:])


def _name_classes(values: Floats) -> dict[int, float]:
    return {number: float(value) for number, value in enumerate(values[0]) if value == value}


def _find_largest(
    average: Callable[[Floats], Floats], read: TargetReader, options: MetricOptions
) -> float | None:
    """Return the largest value of such a mask; ``None`` if the metric is undefined."""
    values = [float(average(counts)[0]) for counts in _iterate_masks(read, options)]
    return max((value for value in values if not np.isnan(value)), default=None)


def _iterate_masks(read: TargetReader, options: MetricOptions) -> Iterator[Floats]:
    """Yield the counts of constant masks and the expected counts of masks that are drawn.

    Constant masks have one class everywhere, or the usual class of a position; with two classes
    also class 1 where its share exceeds a limit. Masks are drawn with the shares of the classes, at
    each position or everywhere, or with their odds, which maximize the mean IoU.
    """
    counts = _count_positions(read, options)
    classes = counts.shape[1]
    for number in range(classes):
        yield _count_mask(counts, np.full(len(counts), number))
    yield _count_mask(counts, counts.argmax(axis=1))
    if classes == 2:
        share = counts[:, 1] / np.maximum(counts.sum(axis=1), 1)
        for limit in _SHARES:
            yield _count_mask(counts, (share > limit).astype(np.int64))
    everywhere = counts.sum(axis=0, keepdims=True)
    for totals in (counts, everywhere):
        shares = totals / np.maximum(totals.sum(axis=1, keepdims=True), 1)
        odds = shares / np.maximum(1 - shares, _SMALLEST_SHARE)
        for drawn in (shares, odds / np.maximum(odds.sum(axis=1, keepdims=True), _SMALLEST_SHARE)):
            yield _count_drawn(counts, drawn)


def _count_positions(read: TargetReader, options: MetricOptions) -> NDArray[np.int64]:
    """Count each class at each position; over all positions if sizes differ or are too large."""
    sizes, classes = set(), 1
    for targets in read():
        mask = targets["y"].reshape(-1)
        sizes.add(mask.size)
        classes = max(classes, int(mask[_find_scored(mask, options)].max(initial=0)) + 1)
    size = sizes.pop() if len(sizes) == 1 else 1
    size = size if size * classes <= _MOST_COUNTS else 1
    counts = np.zeros((size, classes), np.int64)
    for targets in read():
        mask = targets["y"].reshape(-1)
        scored = _find_scored(mask, options)
        index = np.flatnonzero(scored) % size * classes + mask[scored].astype(np.int64)
        counts += np.bincount(index, minlength=counts.size).reshape(counts.shape)
    return counts


def _find_scored(mask: NDArray[Any], options: MetricOptions) -> NDArray[np.bool_]:
    """Return where a mask has a class; other labels are refused when outputs are scored."""
    scored = (mask >= 0) & (mask < MOST_CLASSES)
    return scored if options.ignore is None else scored & (mask != options.ignore)


def _count_mask(counts: NDArray[np.int64], mask: NDArray[np.int64]) -> Floats:
    """Return the counts [3, 1, classes] of one mask that is the output for all samples."""
    classes = counts.shape[1]
    both = np.bincount(mask, counts[np.arange(len(mask)), mask], minlength=classes)
    output = np.bincount(mask, counts.sum(axis=1), minlength=classes)
    return np.stack([both, counts.sum(axis=0), output]).astype(np.float64)[:, None]


def _count_drawn(counts: NDArray[np.int64], shares: Floats) -> Floats:
    """Return the expected counts [3, 1, classes] of masks whose classes are drawn with shares."""
    both = (counts * shares).sum(axis=0)
    output = (counts.sum(axis=1, keepdims=True) * shares).sum(axis=0)
    return np.stack([both, counts.sum(axis=0), output]).astype(np.float64)[:, None]


_check_columns = check_columns(
    COUNT,
    COUNT,
    COUNT,
    layout="rows",
    may_be_empty=True,
    relation=lambda rows: (rows[:, 0] <= rows[:, 1]) & (rows[:, 0] <= rows[:, 2]),
)


def _check_counts(rows: Sequence[Floats], options: MetricOptions) -> None:
    check_dense_size(len(rows), max((row.size for row in rows), default=0))
    _check_columns(rows, options)


METRICS = (
    Metric(
        name="miou",
        title="mean IoU",
        target="the mask: the class of each pixel, integers",
        prepare=prepare_miou,
        compute_trivial=compute_constant_miou,
        compute_classes=compute_class_iou,
        sample_value=SampleValue(
            compute=compute_sample_iou, title="mean IoU of the image", is_share=True
        ),
        answers=MASKS,
        check_rows=_check_counts,
    ),
    Metric(
        name="dice",
        title="Dice",
        target="the mask: the class of each pixel, integers",
        prepare=prepare_dice,
        compute_trivial=compute_constant_dice,
        compute_classes=compute_class_dice,
        sample_value=SampleValue(
            compute=compute_sample_dice, title="Dice of the image", is_share=True
        ),
        answers=MASKS,
        check_rows=_check_counts,
    ),
)
