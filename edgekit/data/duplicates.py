"""Samples that occur in two splits, found by the hashes of their inputs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.data.column_rows import read_column
from edgekit.data.dataset import Dataset
from edgekit.data.lengths import iter_own_rows
from edgekit_agent.samples import Column, Samples

_DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Evaluation samples that are calibration samples too.

    Attributes:
        shared: Their number.
        expected: The number to expect of two independent splits, as their samples repeat by chance
            where the data have few distinct rows.
    """

    shared: int
    expected: float


def compare_splits(calibration: Dataset, evaluation: Dataset) -> Overlap:
    """Count the evaluation samples whose inputs are those of a calibration sample.

    The rows of all input columns are compared, by a hash of 128 bits. If the model has states,
    whole sequences are compared, as steps alone (silence, a character) occur everywhere.

    Args:
        calibration: Calibration samples, as they are before states are added to them.
        evaluation: Evaluation samples of the same model.
    """
    types = _find_common_types(calibration.samples, evaluation.samples)
    whole = bool(evaluation.samples.states)
    drawn = [digest for digest, _ in _iter_digests(calibration.samples, types, whole=whole)]
    known, found = set(drawn), list(_iter_digests(evaluation.samples, types, whole=whole))
    return Overlap(
        shared=sum(count for digest, count in found if digest in known),
        expected=_compute_expected(found, len(drawn)),
    )


def _compute_expected(found: Sequence[tuple[bytes, int]], drawn: int) -> float:
    """Compute how many of some samples to expect among others that are drawn alike.

    The probability of a row is estimated by how often it occurs among the other samples; that of
    rows that occur once by the number of those that occur twice (Good 1953), so that it is 0 if no
    row occurs twice.

    Args:
        found: Digest of each sample, or sequence, and its number of samples.
        drawn: Number of the others.
    """
    times = Counter(digest for digest, _ in found)
    total, frequencies = len(found), Counter(times.values())
    single = 2 * frequencies[2] / (frequencies[1] * total) if frequencies[1] else 0.0
    expected = 0.0
    for digest, count in found:
        others = times[digest] - 1
        probability = min(others / (total - 1) if others else single, 1.0)
        expected += count * (1 - (1 - probability) ** drawn)
    return expected


def _find_common_types(one: Samples, other: Samples) -> dict[str, np.dtype[np.generic]]:
    """Find for each column of both the type that holds its values in both."""
    types = {column.name: column.dtype for column in one.columns}
    return {
        column.name: np.promote_types(column.dtype, types[column.name])
        for column in other.columns
        if column.name in types
    }


def _iter_digests(
    samples: Samples, types: Mapping[str, np.dtype[np.generic]], *, whole: bool
) -> Iterator[tuple[bytes, int]]:
    """Yield the hash of each sample, or of each ``whole`` sequence, and its number of samples."""
    columns = sorted((c for c in samples.columns if c.name in types), key=lambda c: c.name)
    start = hashlib.blake2b(repr([c.name for c in columns]).encode(), digest_size=_DIGEST_BYTES)
    hashed, count, last = start.copy(), 0, None
    for number, rows in _iter_rows(samples, columns, types):
        if count and (not whole or number != last):
            yield hashed.digest(), count
            hashed, count = start.copy(), 0
        for row in rows:
            hashed.update(row)
        count, last = count + 1, number
    yield hashed.digest(), count


def _iter_rows(
    samples: Samples, columns: Sequence[Column], types: Mapping[str, np.dtype[np.generic]]
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield of each sample the number of its sequence, and the shapes and bytes of its rows."""
    numbers = None if samples.sequence is None else read_column(samples.sequence).tolist()
    for place, rows in enumerate(iter_own_rows(columns, samples)):
        arrays = [rows[c.name].astype(types[c.name], copy=False) for c in columns]
        parts = [part for each in arrays for part in (repr(each.shape).encode(), each.tobytes())]
        yield numbers[place] if numbers else 0, parts
