"""Quantiles of Student's t distribution."""

from __future__ import annotations

import math
from statistics import NormalDist


def compute_t_quantile(level: float, degrees: int) -> float:
    """Compute a quantile of Student's t; for 3 degrees of freedom or more by a series.

    The series is that of Abramowitz and Stegun 1964, 26.7.5; within 1 % from 3 degrees on at the
    levels .025 to .975.
    """
    if degrees == 1:
        return math.tan(math.pi * (level - 0.5))
    if degrees == 2:
        return (2 * level - 1) * math.sqrt(2 / (4 * level * (1 - level)))
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees ** float(i + 1) for i, term in enumerate(terms))
