"""Samples with values so large that a pass cannot fit to them and to the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgekit.data.lengths import iter_own_rows
from edgekit_agent.samples import Column, Samples

# A value above this multiple of the median is an outlier. Integers of 8 bits have 127 steps.
_FAR = 1e9
_ROWS = 64


def find_outlier(parts: Sequence[Samples]) -> str | None:
    """Describe the sample with the largest outlier of a float input; ``None`` if there is none."""
    for name in {column.name: None for part in parts for column in part.columns}:
        found = _describe_largest(name, parts)
        if found is not None:
            return found
    return None


def _describe_largest(name: str, parts: Sequence[Samples]) -> str | None:
    peaks: list[tuple[float, int]] = []
    medians: list[float] = []
    for part in parts:
        for column in part.columns:
            if column.name != name or np.dtype(column.dtype).kind != "f":
                continue
            for start, sizes in _read_sizes(column, part):
                row = int(np.argmax([each.max(initial=0.0) for each in sizes]))
                peaks.append((float(sizes[row].max(initial=0.0)), part.first + start + row))
                values = np.concatenate(sizes)
                medians.append(float(np.median(values[values > 0])) if values.any() else 0.0)
    peak, sample = max(peaks, default=(0.0, 0))
    median = float(np.median([m for m in medians if m] or [0.0]))
    if not median or peak < _FAR * median:
        return None
    return (
        f"sample {sample} of {name} is an outlier: its largest value, {peak:.2g}, is "
        f"{peak / median:.0e} times the median"
    )


def _read_sizes(
    column: Column, samples: Samples
) -> Iterator[tuple[int, list[NDArray[np.float64]]]]:
    """Yield the absolute values of some samples at a time, with the number of the first."""
    rows = (each[column.name] for each in iter_own_rows([column], samples))
    sizes = (np.abs(row.reshape(-1).astype(np.float64)) for row in rows)
    for start in range(0, column.shape[0], _ROWS):
        yield start, list(islice(sizes, _ROWS))
