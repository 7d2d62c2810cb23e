"""Paired comparison of original and candidate: the accuracy drop and its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import EdgekitError
from edgekit.metrics.tango import (
    Z_ONE_SIDED_95,
    Z_TWO_SIDED_95,
    estimate_needed_samples,
    tango_interval,
)
from edgekit_agent.measure.accuracy import hits_from_hex
from edgekit_agent.results import Tally


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy drop of a candidate against the original on the same samples, in percentage points.

    ``interval_points`` is the two-sided 95 % interval of the drop, ``worst_points`` its one-sided
    95 % upper bound. ``proven`` tells whether this bound is within the margin (non-inferiority).
    ``needed_samples`` is the approximate number of samples that would prove it with 80 % power if
    the true drop is the observed one; ``None`` if it is proven, or if more samples would not help.
    """

    n: int
    lost: int  # right with the original, wrong with the candidate
    won: int
    flips: int  # predictions that differ
    drop_points: float
    interval_points: tuple[float, float]
    worst_points: float
    margin_points: float
    proven: bool
    needed_samples: int | None


def compare(
    reference: Tally, candidate: Tally, *, margin_points: float, same_model: bool = False
) -> Comparison:
    """Compare two tallies of the same samples.

    Args:
        reference: The answers of the original.
        candidate: The answers of the candidate.
        margin_points: The largest drop that counts as none, in percentage points.
        same_model: Whether the candidate is the original. If its answers are identical as well,
            there is nothing to prove.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design" (score interval).

    Raises:
        EdgekitError: The tallies are of different samples or metrics.
    """
    n = reference.n
    if (n, reference.metric) != (candidate.n, candidate.metric) or not n:
        raise EdgekitError("only tallies of the same samples and metric can be compared")
    before, after = hits_from_hex(reference.hits, n), hits_from_hex(candidate.hits, n)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    if same_model and not lost + won:
        low = high = worst = 0.0
    else:
        low, high = (100 * end for end in tango_interval(lost, won, n, z=Z_TWO_SIDED_95))
        worst = 100 * tango_interval(lost, won, n, z=Z_ONE_SIDED_95)[1]
    pairs = zip(reference.predictions, candidate.predictions, strict=True)
    return Comparison(
        n=n,
        lost=lost,
        won=won,
        flips=sum(old != new for old, new in pairs),
        drop_points=100 * (lost - won) / n,
        interval_points=(low, high),
        worst_points=worst,
        margin_points=margin_points,
        proven=worst <= margin_points,
        needed_samples=None
        if worst <= margin_points
        else estimate_needed_samples(lost, won, n, margin_points),
    )
