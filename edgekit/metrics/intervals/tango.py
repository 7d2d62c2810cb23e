"""Score interval for the difference of paired proportions (Tango 1998)."""

from __future__ import annotations

import math
from collections.abc import Callable

Z_TWO_SIDED_95 = 1.959964
Z_ONE_SIDED_95 = 1.644854
Z_POWER_80 = 0.841621


def tango_interval(lost: int, won: int, n: int, *, z: float) -> tuple[float, float]:
    """Compute the score interval of ``(lost - won) / n`` for paired samples.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design".
    """
    estimate = (lost - won) / n

    def score(delta: float) -> float:
        b = (2 * n - lost + won) * delta - lost - won
        c = -won * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (lost - won - n * delta) / math.sqrt(variance) if variance > 0 else 0.0

    return (
        _bisect(lambda d: score(d) <= z, -1.0, estimate),
        _bisect(lambda d: score(d) < -z, estimate, 1.0),
    )


def _compute_variance(drop: float, share: float, delta: float) -> float:
    """Compute the variance of the loss of one sample if the true loss is ``delta``.

    Args:
        drop: Observed loss.
        share: Observed share of discordant pairs.
        delta: True loss.
    """
    won = (share - drop) / 2
    b = (2 - drop) * delta - share
    q = (math.sqrt(max(b * b + 8 * won * delta * (1 - delta), 0.0)) - b) / 4
    return 2 * q + delta * (1 - delta)


def _bisect(past: Callable[[float], bool], low: float, high: float) -> float:
    """Find the point between ``low`` and ``high`` at which ``past`` turns from False to True."""
    for _ in range(60):
        middle = (low + high) / 2
        if past(middle):
            high = middle
        else:
            low = middle
    return (low + high) / 2


def estimate_needed_samples(lost: int, won: int, n: int, margin_points: float) -> int | None:
    """Estimate how many samples prove non-inferiority with 80 % power.

    Returns:
        ``None`` if these are enough, or if the loss is not within the margin.
    """
    margin, drop = margin_points / 100, max(lost - won, 0) / n
    if drop >= margin:
        return None
    # Observing no discordant pair does not mean that there is none: count half a pair.
    share = max(lost + won, 0.5) / n
    # The score test uses the variance that the margin implies, the observed loss has its own.
    spread = Z_ONE_SIDED_95 * math.sqrt(_compute_variance(drop, share, margin))
    spread += Z_POWER_80 * math.sqrt(share - drop * drop)
    normal = (spread / (margin - drop)) ** 2
    # Without a single discordant pair the score interval still needs this many (Tango 1998).
    least = Z_ONE_SIDED_95**2 * (1 - margin) / margin
    needed = math.ceil(max(normal, least))
    return needed if needed > n else None
