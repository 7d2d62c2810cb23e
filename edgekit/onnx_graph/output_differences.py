"""Errors of outputs relative to reference outputs: the definitions that comparisons share.

The relative RMS error is that of ``edgekit_agent.measure.relative_error``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

K = TypeVar("K")

# Least squared size, for outputs that are all zeros.
_NOTHING = 1e-30
# An output that varies less than this between samples, relative to its size, has no correlation.
_VARIES = 0.1
# Degrees of freedom (rows less one, times entries) below which a correlation may be chance.
LEAST_FREEDOMS = 8


def compute_squared_error(
    old: NDArray[np.generic], new: NDArray[np.generic]
) -> tuple[float, float]:
    """Compute squared error and squared size over the finite entries of a float value; else 0."""
    if old.dtype.kind != "f" or old.shape != new.shape:
        return 0.0, 0.0
    before = old.astype(np.float64)
    finite = np.isfinite(before)
    error = np.square(new.astype(np.float64)[finite] - before[finite]).sum()
    return float(error), float(np.square(before[finite]).sum())


@dataclass(kw_only=True)
class SquaredErrors(Generic[K]):
    """Squared errors and squared sizes, summed over batches, by key."""

    error: dict[K, float] = field(default_factory=dict)
    size: dict[K, float] = field(default_factory=dict)

    def add(self, key: K, error: float, size: float) -> None:
        """Add the error and size of one batch."""
        self.error[key] = self.error.get(key, 0.0) + error
        self.size[key] = self.size.get(key, 0.0) + size

    def compute_relative(self, key: K) -> float:
        """Return the squared error over the squared size."""
        return self.error[key] / max(self.size[key], _NOTHING)

    def compute_relative_rms(self, key: K) -> float:
        """Return the RMS error over the RMS."""
        return math.sqrt(self.compute_relative(key))


def compute_correlation(old: NDArray[np.float64], new: NDArray[np.float64]) -> float | None:
    """Compute the correlation of an output with its reference over samples, their means removed.

    Args:
        old: reference, one row for each sample.
        new: output, of the same shape.

    Returns:
        The correlation; ``None`` for few samples, and where the reference hardly varies.
    """
    finite = np.isfinite(old).all(axis=0)
    old, new = old[:, finite], new[:, finite]
    if (len(old) - 1) * old.shape[1] < LEAST_FREEDOMS:
        return None
    moved, answered = old - old.mean(axis=0), new - new.mean(axis=0)
    variation, answer = (float(np.sqrt(np.square(v).sum())) for v in (moved, answered))
    if variation <= _VARIES * float(np.sqrt(np.square(old).sum())):
        return None
    return float((moved * answered).sum() / (variation * answer)) if answer else 0.0


def compute_largest_difference(
    expected: NDArray[np.generic], got: NDArray[np.generic], *, stray: float = 0.0
) -> float:
    """Return the largest difference relative to the largest finite magnitude expected.

    Args:
        expected: reference; its entries that are not finite are not compared.
        got: values of the same shape.
        stray: fraction of the rows to leave out, those that differ most.
    """
    if not expected.size:
        return 0.0
    one, other = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(one)
    scale = float(np.abs(one[finite]).max(initial=0.0)) or 1.0
    same = (one == other) | ~finite
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(one - other) / scale)
    apart = np.where(np.isfinite(apart), apart, math.inf)
    rows = apart.reshape(len(apart), -1).max(axis=1) if apart.ndim else apart.reshape(1)
    kept = len(rows) - int(len(rows) * stray)
    return float(np.sort(rows)[:kept].max(initial=0.0))
