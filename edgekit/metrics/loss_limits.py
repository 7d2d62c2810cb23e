"""Confidence limits of the loss between two models, by the method that suits the metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.metrics.bootstrap import Bootstrap, compute_influences, resample_losses
from edgekit.metrics.paired_tables import PairedTables
from edgekit.metrics.tango import (
    Z_ONE_SIDED_95,
    Z_POWER_80,
    Z_TWO_SIDED_95,
    estimate_needed_samples,
    tango_interval,
)

# Groups that are left out one by one to find the most different ones; more are left out in blocks.
_MOST_GROUPS = 4000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Confidence limits of a loss, and the number of samples that would prove it small."""

    low: float
    high: float
    worst: float
    method: str
    needed: int | None = None
    is_reliable: bool = True


def limit_proportions(counts: tuple[int, int, int], n: int, margin: float) -> Limits:
    """Return the score interval of paired proportions, in points.

    Args:
        counts: Samples that the original alone and the candidate alone predicts correctly, flips.
        n: Number of samples.
        margin: Largest loss that counts as none, in points.
    """
    lost, won, _ = counts
    low, high = (100 * end for end in tango_interval(lost, won, n, z=Z_TWO_SIDED_95))
    return Limits(
        low=low,
        high=high,
        worst=100 * tango_interval(lost, won, n, z=Z_ONE_SIDED_95)[1],
        method="Tango",
        needed=estimate_needed_samples(lost, won, n, margin),
    )


def limit_by_bootstrap(pair: PairedTables, seed: int, resamples: int) -> Limits:
    """Return the limits of the paired bootstrap, or a bound if no resample shows a difference."""
    groups = pair.before.groups
    found = resample_losses(
        pair.compute_losses, pair.before.n, groups, seed=seed, resamples=resamples
    )
    if found.is_constant and found.is_reliable:
        return _limit_constant(pair, found)
    low, high, worst = (found.compute_bound(level) for level in (0.025, 0.975, 0.95))
    method = "BCa bootstrap"
    if found.groups < 2:
        method = "no interval: one group"
    elif not found.is_reliable:
        method = f"no proof: undefined in {found.undefined:.0%} of the resamples"
    return Limits(
        low=min(low, found.observed),
        high=max(high, found.observed),
        worst=max(worst, found.observed),
        method=method,
        needed=_scale_samples(pair, found, worst),
        is_reliable=found.is_reliable,
    )


def _limit_constant(pair: PairedTables, found: Bootstrap) -> Limits:
    """Bound a loss that is the same in all resamples.

    With 95 % confidence, at most a share of about 3 / groups of all groups differs from those seen
    (the rule of three). Such a group is taken to change the value by no more than the difference of
    the most different groups of the original, or by 100 points of a share, or by the value itself.
    """
    change = _find_largest_change(pair)
    worst, two_sided = (
        found.observed + (1 - level ** (1 / found.groups)) * change for level in (0.05, 0.025)
    )
    room = pair.margin.value - max(found.observed, 0.0)
    needed = None
    if 0 < room < change:
        groups = math.log(0.05) / math.log1p(-room / change)
        needed = math.ceil(groups * pair.before.n / found.groups)
    return Limits(
        low=2 * found.observed - two_sided,
        high=two_sided,
        worst=worst,
        method="rule of three, as no sample shows a difference",
        needed=needed,
    )


def _find_largest_change(pair: PairedTables) -> float:
    """Return by how much a group that was not seen is taken to change the loss, at most."""
    n, groups = pair.before.n, pair.before.groups
    inverse = None if groups is None else np.unique(groups, return_inverse=True)[1]
    influences = compute_influences(pair.compute_before, n, inverse, blocks=_MOST_GROUPS)
    spread = float(np.ptp(influences)) * max(pair.groups / _MOST_GROUPS, 1) if n > 1 else 0.0
    value = abs(float(pair.compute_before(np.ones((1, n)))[0]))
    if pair.margin.relative:
        return 100 * max(spread / value, 1.0)
    return 100 * max(spread, 1.0) if pair.metric.is_share else max(spread, value)


def _scale_samples(pair: PairedTables, found: Bootstrap, worst: float) -> int | None:
    """Estimate the number of samples that proves the margin with 80 % power."""
    drop = max(found.observed, 0.0)
    room = pair.margin.value - drop
    if room <= 0 or not math.isfinite(worst) or not math.isfinite(found.standard_error):
        return None
    width = worst - found.observed + Z_POWER_80 * found.standard_error
    needed = math.ceil(pair.before.n * (width / room) ** 2)
    return needed if needed > pair.before.n else None
