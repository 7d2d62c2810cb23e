"""Rows of several frames per sample, and sums that are weighted by the samples' weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.metric import Aggregate, Floats, Table, TargetReader
from edgekit_agent.scoring import MetricOptions

Indices = NDArray[np.int64]
# Values of one intermediate array: 32 MiB, so that a whole chunk of resamples fits in memory.
_MOST_VALUES = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitRows:
    """Frames of all samples, from rows that hold all first values, then all second ones.

    Attributes:
        first: First value (label, target) of each frame.
        second: Second value (score, prediction) of each frame.
        owners: Number of the sample of each frame.
    """

    first: Floats
    second: Floats
    owners: Indices


def split_rows(table: Table) -> SplitRows:
    """Split rows of 2 m values into m frames."""
    halves = [row.reshape(2, -1) for row in table.rows]
    joined = np.concatenate(halves, axis=1) if halves else np.empty((2, 0))
    owners = np.repeat(np.arange(table.n), [half.shape[1] for half in halves])
    return SplitRows(first=joined[0], second=joined[1], owners=owners)


def read_labels(read: TargetReader, options: MetricOptions) -> NDArray[np.int64]:
    """Read the labels of all samples, without the ignored one."""
    parts = [np.asarray(targets["y"]).reshape(-1).astype(np.int64) for targets in read()]
    labels = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return np.asarray(labels[labels != options.ignore], np.int64)


def gather_weights(weights: Floats, owners: tuple[Indices, ...]) -> Floats:
    """Return the weights [b, m] of elements that belong to one or more samples each.

    Args:
        weights: Weights [b, n] of the samples.
        owners: Samples of the elements; the weight of an element is the product of theirs.
    """
    gathered = np.take(weights, owners[0], axis=1)
    for more in owners[1:]:
        gathered *= np.take(weights, more, axis=1)
    return gathered


def accumulate(values: Floats) -> Floats:
    """Return cumulative sums along the last axis that start with 0."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def prepare_sums_to(positions: Indices) -> Callable[[Floats], Floats]:
    """Return a function of values [b, m] that sums those before each position, as [b, positions].

    Values between two neighboring positions are summed at once, faster than cumulative sums.
    """
    bounds = np.unique(np.append(positions, 0))
    places = np.searchsorted(bounds, positions)

    def compute(values: Floats) -> Floats:
        if bounds.size == 1:
            return np.zeros((len(values), positions.size))
        parts = np.add.reduceat(values[:, : bounds[-1]], bounds[:-1], axis=1)
        return np.asarray(np.take(accumulate(parts), places, axis=1), np.float64)

    return compute


def compute_in_chunks(compute: Callable[[Floats], Floats], elements: int) -> Aggregate:
    """Return an aggregate that takes so few weights at a time that arrays stay small.

    Args:
        compute: Values [b] for weights [b, n].
        elements: Number of values that ``compute`` holds for each of the b.
    """
    size = max(1, _MOST_VALUES // max(elements, 1))

    def aggregate(weights: Floats) -> Floats:
        parts = [compute(weights[i : i + size]) for i in range(0, len(weights), size)]
        return np.concatenate(parts) if parts else np.empty(0)

    return aggregate


def sum_classes(classes: Indices, owners: Indices, count: int) -> Callable[[Floats], Floats]:
    """Return a function of weights [b, n] that sums them by class, as [b, count].

    Args:
        classes: Class of each frame.
        owners: Sample of each frame.
        count: Number of classes.
    """
    samples = int(owners.max(initial=0)) + 1
    # One entry for the frames of one class and one sample, sorted by class.
    entries, frames = np.unique(classes * samples + owners, return_counts=True)
    of_class, of_sample = entries // samples, entries % samples
    occurring, starts = np.unique(of_class, return_index=True)

    def compute(weights: Floats) -> Floats:
        sums = np.zeros((len(weights), count))
        if entries.size:
            weighted = np.take(weights, of_sample, axis=1) * frames
            sums[:, occurring] = np.add.reduceat(weighted, starts, axis=1)
        return sums

    return compute


def divide(values: Floats, by: Floats) -> Floats:
    """Return the ratio, NaN where the divisor is 0."""
    result = np.full(np.broadcast_shapes(np.shape(values), np.shape(by)), np.nan)
    np.divide(values, by, out=result, where=by != 0)
    return result


def average_defined(values: Floats) -> Floats:
    """Return the mean over the last axis of the values that are not NaN; NaN if there is none."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return divide(total, defined.sum(axis=-1).astype(np.float64))
