"""Paired 95 % intervals of the difference between two models, in the units of their metric.

Both models are evaluated on the same resamples of the units of a score.

Sources: Efron and Tibshirani 1993, "An Introduction to the Bootstrap" (percentile interval, chapter
13); Tango 1998 for classifiers (score interval of paired proportions); Zou and Donner 2008 for
means ("Construction of confidence limits about effect measures: a general approach").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.intervals.tango import tango_interval

Array = NDArray[Any]
LOWER_IS_BETTER = {"cer", "eer", "mae", "ppl"}
_PERFECT_AT_ZERO = {"cer", "eer", "mae"}
RESAMPLES = 1000
_Z_95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Score of a model, and its metric as a function of the weight of each unit.

    ``hits`` marks the correct samples of a classifier.

    Raises:
        ValueError: The metric of all units with weight one is not the score.
    """

    metric: str
    score: float
    units: int
    metric_of: Callable[[Array], float]
    hits: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        found = self.metric_of(np.ones(self.units))
        if not math.isclose(found, self.score, rel_tol=1e-5, abs_tol=1e-9):
            raise ValueError(f"{self.metric} is {self.score}, but its parts give {found}")


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Difference of two scores with its 95 % interval; positive if the second is better."""

    value: float
    low: float
    high: float

    def relative_to(self, reference: Evaluation) -> Gain:
        """Return the gain as a fraction of the distance from the reference to a perfect score."""
        scale = abs(reference.score - (0.0 if reference.metric in _PERFECT_AT_ZERO else 1.0))
        return Gain(value=self.value / scale, low=self.low / scale, high=self.high / scale)


def mean_gain(gains: Sequence[Gain]) -> Gain:
    """Compute the mean of independent gains and its interval (the method of Zou and Donner)."""
    values = np.array([(each.value, each.low, each.high) for each in gains])
    value = values[:, 0].mean()
    below, above = (np.linalg.norm(values[:, 0] - values[:, i]) / len(gains) for i in (1, 2))
    return Gain(value=float(value), low=float(value - below), high=float(value + above))


def paired_gain(before: Evaluation, after: Evaluation, *, resamples: int = RESAMPLES) -> Gain:
    """Compare two models on the same resamples of the same units.

    Resamples on which the metric is undefined (an AUC with a single class) are left out.
    """
    sign = -1.0 if before.metric in LOWER_IS_BETTER else 1.0
    value = sign * (after.score - before.score) + 0.0  # no negative zero
    if before.hits is not None and after.hits is not None:
        won = int((after.hits & ~before.hits).sum())
        lost = int((before.hits & ~after.hits).sum())
        low, high = tango_interval(won, lost, before.units, z=_Z_95)
        return Gain(value=value, low=low, high=high)
    rng = np.random.default_rng(0)
    shares = np.full(before.units, 1 / before.units)
    drawn = [
        sign * (after.metric_of(counts) - before.metric_of(counts))
        for counts in rng.multinomial(before.units, shares, size=resamples).astype(float)
    ]
    low, high = np.nanpercentile(drawn, (2.5, 97.5)) + 0.0
    return Gain(value=value, low=float(low), high=float(high))
