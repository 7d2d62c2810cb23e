"""Subsets of samples as views of the files: spread over a split, or held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgekit_agent.samples import Column, Samples

# Number of consecutive samples that ``select_spread`` takes.
_BLOCK = 8
# Consecutive samples in a held-out piece, and one of how many pieces is held out.
_PIECE, _PIECES = 2, 4


def select_rows(samples: Samples, start: int, count: int) -> Samples:
    """Return samples ``start`` to ``start + count`` as a view of their files."""

    def cut(column: Column) -> Column:
        row_bytes = np.dtype(column.dtype).itemsize * math.prod(column.shape[1:])
        return replace(
            column,
            offset=column.offset + start * row_bytes,
            shape=(count, *column.shape[1:]),
        )

    return replace(map_columns(samples, cut), first=samples.first + start)


def map_columns(samples: Samples, change: Callable[[Column], Column]) -> Samples:
    """Return samples with another column instead of each that has a row for every sample."""
    return replace(
        samples,
        columns=tuple(change(column) for column in samples.columns),
        label=change(samples.label) if samples.label else None,
        sequence=change(samples.sequence) if samples.sequence else None,
        targets=tuple(change(column) for column in samples.targets),
        lengths=tuple(change(column) for column in samples.lengths),
    )


def to_parts(samples: Samples | Sequence[Samples]) -> Sequence[Samples]:
    """Return samples as a sequence of parts; a single piece becomes one part."""
    return [samples] if isinstance(samples, Samples) else samples


def count_samples(parts: Sequence[Samples]) -> int:
    """Count the samples of all parts."""
    return sum(part.columns[0].shape[0] for part in parts)


def cut_parts(parts: Sequence[Samples], start: int, count: int) -> list[Samples]:
    """Return samples ``start`` to ``start + count``, numbered across the parts."""
    found = []
    for part in parts:
        rows = part.columns[0].shape[0]
        first, last = max(start, 0), min(start + count, rows)
        if first < last:
            found.append(select_rows(part, first, last - first))
        start -= rows
    return found


def select_spread(samples: Samples | Sequence[Samples], count: int) -> list[Samples]:
    """Select ``count`` samples in blocks from the whole split, which may be sorted by class."""
    parts = to_parts(samples)
    total = count_samples(parts)
    if total <= count:
        return list(parts)
    sizes = [min(_BLOCK, count - start) for start in range(0, count, _BLOCK)]
    # Skipped samples lie evenly between the blocks, which never overlap.
    gap, last = total - count, max(len(sizes) - 1, 1)
    starts = [_BLOCK * i + gap * i // last for i in range(len(sizes))]
    blocks = zip(starts, sizes, strict=True)
    return [piece for start, size in blocks for piece in cut_parts(parts, start, size)]


def split_held_out(
    samples: Samples | Sequence[Samples], count: int, *, most: int, batch: int
) -> tuple[list[Samples], list[Samples]]:
    """Select ``count`` samples from the whole split, divided into used and held-out samples.

    Args:
        samples: The split.
        count: Number of samples to select in total.
        most: Largest number of held-out samples. A quarter is held out, or half of a few pieces. A
            single piece is not divided: both results are the same.
        batch: Batch size of the model; a batch is not divided.
    """
    size = max(_PIECE, batch)
    parts = select_spread(samples, count)
    pieces = [
        select_rows(part, start, min(size, part.columns[0].shape[0] - start))
        for part in parts
        for start in range(0, part.columns[0].shape[0], size)
    ]
    if len(pieces) < _PIECES:
        half = len(pieces) // 2
        return (pieces[half:], pieces[:half]) if half else (pieces, pieces)
    apart = pieces[_PIECES - 1 :: _PIECES]
    kept = apart[:: max(1, -(-len(apart) * size // most))]
    return [p for i, p in enumerate(pieces) if i % _PIECES != _PIECES - 1], kept
