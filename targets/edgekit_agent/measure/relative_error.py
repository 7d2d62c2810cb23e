"""Relative RMS error of an output, the same on host and device. Needs numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compute_rms(values: NDArray[np.float64]) -> float:
    """Compute the root mean square, also of numbers whose squares overflow; 0 without values."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean((values / largest) ** 2)))


def compute_relative_rms(
    expected: NDArray[np.float64], found: NDArray[np.float64], least: float = 0.0
) -> float:
    """Compute the RMS error of finite values over the RMS of the expected ones.

    Args:
        expected: the reference values.
        found: the values to compare, of the same shape.
        least: the smallest reference size; with 0, the error of zeros is absolute.
    """
    size = max(compute_rms(expected), least)
    error = compute_rms(found - expected)
    return error / size if size > 0 else error
