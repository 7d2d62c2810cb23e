"""Checks of the rows that an agent returns: their sizes, and the range of every number.

A device may be broken or compromised. Rows that no statistic gives are refused before they are
aggregated, so that they end neither in a wrong value nor in arrays that fill the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.metric import CheckRows, Floats
from edgekit_agent.scoring import MetricOptions

# Largest number of a class or a label.
MOST_LABEL = 2.0**31
# Largest number of a class where the aggregate has an array of all classes.
MOST_CLASSES = 2.0**20
# Most numbers of an array that has the rows of all samples: 1 GiB.
_MOST_NUMBERS = 1 << 27
# Largest error by rounding of a value from -1 to 1.
_TOLERANCE = 1e-9

# Layout of a row: one number for each column; rows of a matrix one after the other; its columns
# one after the other.
Layout = Literal["single", "rows", "columns"]
# Returns for the rows of a matrix whether the numbers of each fit together.
Relation = Callable[[Floats], NDArray[np.bool_]]


class UnequalRowsError(ValueError):
    """Samples have rows of different sizes, but the metric needs them all alike."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers that may stand at one place of a row."""

    low: float = -math.inf
    high: float = math.inf
    is_whole: bool = False

    def accepts(self, values: Floats) -> bool:
        """Return whether all values are in the range."""
        whole = not self.is_whole or bool((values == np.floor(values)).all())
        return whole and bool(((values >= self.low) & (values <= self.high)).all())


ANY = Range()
POSITIVE = Range(low=0)
FLAG = Range(low=0, high=1, is_whole=True)
COUNT = Range(low=0, is_whole=True)
COUNT_FROM_1 = Range(low=1, is_whole=True)
LABEL = Range(low=0, high=MOST_LABEL, is_whole=True)
CLASS = Range(low=0, high=MOST_CLASSES, is_whole=True)
# A sum of losses, which rounding may bring below zero.
NOT_NEGATIVE = Range(low=-1e-6)
COSINE = Range(low=-1 - _TOLERANCE, high=1 + _TOLERANCE)


def check_columns(
    *columns: Range,
    layout: Layout = "single",
    may_be_empty: bool = False,
    have_equal_sizes: bool = False,
    relation: Relation | None = None,
) -> CheckRows:
    """Return the check of rows that hold a matrix.

    Args:
        columns: Range of each column.
        layout: How the matrix is laid out in a row; ``single`` = it has one row.
        may_be_empty: Whether samples may be left out.
        have_equal_sizes: Whether the rows of all samples must have the same size.
        relation: Condition on the numbers of each row of the matrix.
    """

    def check(rows: Sequence[Floats], options: MetricOptions) -> None:
        del options
        sizes = check_sizes(rows, may_be_empty=may_be_empty, have_equal_sizes=have_equal_sizes)
        count = len(columns)
        for size in np.unique(sizes).tolist():
            if size % count or (layout == "single" and size > count):
                raise ValueError(f"a row has {size} values")
        parts = [row.reshape(count, -1).T if layout == "columns" else row for row in rows]
        matrix = np.concatenate([part.reshape(-1, count) for part in (np.zeros(0), *parts)])
        for number, column in enumerate(columns):
            if not column.accepts(matrix[:, number]):
                raise ValueError(f"number {number + 1} of a row is out of range")
        if relation is not None and not relation(matrix).all():
            raise ValueError("the numbers of a row contradict each other")

    return check


def check_sizes(
    rows: Sequence[Floats], *, may_be_empty: bool, have_equal_sizes: bool
) -> NDArray[np.int64]:
    """Check which rows are empty and of equal size; return the sizes of all.

    Raises:
        ValueError: A row is empty, or rows differ in size.
    """
    sizes = np.array([row.size for row in rows], np.int64)
    if not may_be_empty and (sizes == 0).any():
        raise ValueError(f"sample {int(np.argmin(sizes))} has an empty row")
    found = np.unique(sizes[sizes > 0])
    if have_equal_sizes and found.size > 1:
        raise UnequalRowsError(
            f"samples differ in size, their rows have {found[0]} to {found[-1]} values"
        )
    check_dense_size(found.size and len(rows), int(found.max(initial=0)) if have_equal_sizes else 1)
    return sizes


def check_dense_size(samples: int, size: int) -> None:
    """Check that an array with ``size`` numbers for each sample fits in memory.

    Raises:
        ValueError: It does not.
    """
    if samples * size > _MOST_NUMBERS:
        raise ValueError(f"{size} numbers for each of {samples} samples are too many")


def check_embeddings(rows: Sequence[Floats], options: MetricOptions) -> None:
    """Check rows of a label and an embedding.

    Raises:
        ValueError: A row has another layout.
    """
    del options
    sizes = check_sizes(rows, may_be_empty=True, have_equal_sizes=True)
    if sizes.max(initial=0) in (1, 2):
        raise ValueError("an embedding has one value")
    labels = np.array([row[0] for row in rows if row.size])
    if not (labels == np.floor(labels)).all():
        raise ValueError("a label is not a whole number")
