"""Confidence limits of the loss between two models, by the method that suits the metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.metrics.intervals.bootstrap import compute_influences, resample_losses
from edgekit.metrics.intervals.paired_tables import PairedTables
from edgekit.metrics.intervals.student_t import compute_t_quantile
from edgekit.metrics.intervals.tango import (
    Z_ONE_SIDED_95,
    Z_POWER_80,
    Z_TWO_SIDED_95,
    estimate_needed_samples,
    tango_interval,
)
from edgekit.metrics.metric import Aggregate, Floats

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
        return _limit_constant(pair, found.observed, found.groups)
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
        needed=_scale_samples(pair, found.observed, found.standard_error, worst),
        is_reliable=found.is_reliable,
    )


def limit_by_jackknife(pair: PairedTables) -> Limits:
    """Return the limits of the delete-a-group jackknife, by Student's t.

    Source: Kott 2001, "The delete-a-group jackknife".
    """
    left_out = _leave_out_blocks(pair, pair.compute_losses)
    observed = float(pair.compute_losses(np.ones((1, pair.before.n)))[0])
    count = left_out.size
    if count < 2 or not np.isfinite(left_out).all():
        return Limits(
            low=-math.inf,
            high=math.inf,
            worst=math.inf,
            method="no interval: one block" if count < 2 else "no interval: undefined in a block",
            is_reliable=False,
        )
    spread = float(np.ptp(left_out))
    if spread <= 1e-9 * max(abs(observed), 1e-3):
        return _limit_constant(pair, observed, pair.groups)
    squares = float(np.sum((left_out - left_out.mean()) ** 2))
    error = math.sqrt(squares * (count - 1) / count)
    two_sided, one_sided = (compute_t_quantile(level, count - 1) for level in (0.975, 0.95))
    worst = observed + one_sided * error
    return Limits(
        low=observed - two_sided * error,
        high=observed + two_sided * error,
        worst=worst,
        method=f"jackknife of {count} blocks",
        needed=_scale_samples(pair, observed, error, worst),
    )


def _leave_out_blocks(pair: PairedTables, compute: Aggregate) -> Floats:
    """Compute values without each block of samples."""
    if pair.metric.find_blocks is None:
        return np.zeros(0)
    blocks = pair.metric.find_blocks(pair.before)
    numbers = np.unique(blocks)
    return compute((blocks[None, :] != numbers[:, None]).astype(np.float64))


def _limit_constant(pair: PairedTables, observed: float, groups: int) -> Limits:
    """Bound a loss that is the same in all resamples.

    With 95 % confidence, at most a share of about 3 / groups of all groups differs from those seen
    (the rule of three). Such a group is taken to change the value by no more than the difference of
    the most different groups of the original, or by 100 points of a share, or by the value itself.
    """
    change = _find_largest_change(pair)
    worst, two_sided = (observed + (1 - level ** (1 / groups)) * change for level in (0.05, 0.025))
    room = pair.margin.value - max(observed, 0.0)
    needed = None
    if 0 < room < change:
        needed_groups = math.log(0.05) / math.log1p(-room / change)
        needed = math.ceil(needed_groups * pair.before.n / groups)
    return Limits(
        low=2 * observed - two_sided,
        high=two_sided,
        worst=worst,
        method="rule of three, as no sample shows a difference",
        needed=needed,
    )


def _find_largest_change(pair: PairedTables) -> float:
    """Return by how much a group that was not seen is taken to change the loss, at most."""
    n, groups = pair.before.n, pair.before.groups
    inverse = None if groups is None else np.unique(groups, return_inverse=True)[1]
    if pair.metric.find_blocks:
        left_out = _leave_out_blocks(pair, pair.compute_before)
        spread = float(np.ptp(left_out)) * (left_out.size - 1) * pair.groups / left_out.size
    else:
        influences = compute_influences(pair.compute_before, n, inverse, blocks=_MOST_GROUPS)
        spread = float(np.ptp(influences)) * max(pair.groups / _MOST_GROUPS, 1) if n > 1 else 0.0
    value = abs(float(pair.compute_before(np.ones((1, n)))[0]))
    if pair.margin.relative:
        return 100 * max(spread / value, 1.0)
    return 100 * max(spread, 1.0) if pair.metric.is_share else max(spread, value)


def _scale_samples(
    pair: PairedTables, observed: float, standard_error: float, worst: float
) -> int | None:
    """Estimate the number of samples that proves the margin with 80 % power."""
    drop = max(observed, 0.0)
    room = pair.margin.value - drop
    if room <= 0 or not math.isfinite(worst) or not math.isfinite(standard_error):
        return None
    width = worst - observed + Z_POWER_80 * standard_error
    needed = math.ceil(pair.before.n * (width / room) ** 2)
    return needed if needed > pair.before.n else None
