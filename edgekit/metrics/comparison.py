"""Paired comparison of original and candidate on the same samples, by one metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["points", "%", ""]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Loss of a candidate against the original on the same samples, by one metric.

    Attributes:
        metric: Name of the metric.
        n: Number of scored samples.
        groups: Number of independent groups of samples; ``n`` without a group column.
        before: Value of the original.
        after: Value of the candidate.
        unit: Unit of the losses: percentage points of a share, percent of the original's value, or
            that of the metric ("").
        drop: Loss; positive = the candidate is worse, in the direction of the metric.
        interval: Two-sided 95 % confidence interval of the loss.
        worst: One-sided 95 % upper bound of the loss.
        margin: Largest loss that counts as none.
        proven: Whether ``worst`` is within the margin (non-inferiority).
        needed_samples: Approximate number of samples that would prove it with 80 % power if the
            true loss is the observed one; ``None`` if it is proven, or more would not help.
        method: Method of the interval, for the report.
        lost: Samples that the original alone predicts correctly; ``None`` without such a count.
        won: Samples that the candidate alone predicts correctly.
        flips: Samples whose predictions differ.
        meaningless: Why the value of the original says nothing; empty if it does.
    """

    metric: str
    n: int
    groups: int
    before: float
    after: float
    unit: Unit
    drop: float
    interval: tuple[float, float]
    worst: float
    margin: float
    proven: bool
    needed_samples: int | None
    method: str
    lost: int | None = None
    won: int | None = None
    flips: int | None = None
    meaningless: str = ""
