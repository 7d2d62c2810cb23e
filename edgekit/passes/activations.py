"""8-bit parameters of activations: estimate ranges, and choose one for each value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from edgekit.data import rows_of, spread
from edgekit.errors import PassRefused
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.placement import Placement
from edgekit.graphs.probes import watch_entries, watch_extremes
from edgekit.passes import Work
from edgekit.passes.affine import Affine, unsigned_affine
from edgekit.passes.judge import reader_errors
from edgekit.passes.ranges import Extremes, Histograms, Range, Seen, estimate
from edgekit.recipe import Estimator, QuantizeStatic
from edgekit_agent.records import Samples

_ALL: tuple[Estimator, ...] = get_args(Estimator)
_HELD_OUT = 16
# Of fewer samples every one is needed to know the ranges.
_FEW = 64
# Samples that fill the histograms.
_COUNTED = 128
_FROM_EXTREMES = {"minmax", "average"}
PER_VALUE = "per value"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Calibration samples: most for estimating, a few held back for judging."""

    estimating: Sequence[Samples]
    judging: Sequence[Samples]


def split_samples(samples: Samples, most: int) -> Split:
    """Hold samples from all over back for judging; where there are few, all serve for both."""
    total = samples.columns[0].shape[0]
    if total < _FEW:
        return Split(estimating=[samples], judging=spread(samples, _HELD_OUT))
    every = total // _HELD_OUT
    judging = [rows_of(samples, i * every, 1) for i in range(_HELD_OUT)]
    starts = [i * every + 1 for i in range(_HELD_OUT)]
    gaps = [
        rows_of(samples, start, end - start)
        for start, end in zip(starts, [*(s - 1 for s in starts[1:]), total], strict=True)
    ]
    share = max(most - _HELD_OUT, _HELD_OUT) // _HELD_OUT
    return Split(estimating=[part for gap in gaps for part in spread(gap, share)], judging=judging)


def find_parameters(
    index: GraphIndex,
    placement: Placement,
    settings: QuantizeStatic,
    work: Work,
    split: Split,
) -> dict[str, dict[str, Affine]]:
    """uint8 parameters of every value that becomes 8-bit; moved values have their source's.

    Returns:
        By each estimator of the settings; where these are all, also, as ``PER_VALUE``, for each
        value those that make the least error in what reads it.

    Raises:
        PassRefused: a value is not finite on the samples.
    """
    roots = list(dict.fromkeys(placement.root(name) for name in placement.values))
    estimators = _ALL if settings.ranges == "auto" else (settings.ranges,)
    try:
        ranges = _ranges(index, roots, estimators, settings, work, split)
    except FloatingPointError as error:
        raise PassRefused(f"value {error} is not finite on the calibration samples") from error
    affines: dict[str, dict[str, Affine]] = {
        root: {label: unsigned_affine(*each) for label, each in found.items()}
        for root, found in ranges.items()
    }
    roots_of = {name: placement.root(name) for name in placement.values}
    choices: dict[str, dict[str, Affine]] = {
        label: {name: affines[root][label] for name, root in roots_of.items()}
        for label in estimators
    }
    if len(estimators) > 1:
        work.progress("choosing ranges", 0, 1)
        errors = reader_errors(index, placement, affines, split.judging)
        best = {root: min(each, key=each.__getitem__) for root, each in errors.items()}
        choices[PER_VALUE] = {name: affines[root][best[root]] for name, root in roots_of.items()}
    return choices


def _ranges(
    index: GraphIndex,
    roots: Sequence[str],
    estimators: Sequence[Estimator],
    settings: QuantizeStatic,
    work: Work,
    split: Split,
) -> dict[str, dict[Estimator, Range]]:
    """Two passes over the samples: extremes, then histograms between them."""
    extremes = Extremes()
    tick = partial(work.progress, "ranges")
    for facts in watch_extremes(index, roots, split.estimating, tick=tick):
        for name, (low, high, total, size) in facts.items():
            if size and total - total != 0:
                raise FloatingPointError(name)
            extremes.update(name, Seen(low=low, high=high, size=size))
    histograms = Histograms(extremes=extremes)
    if not set(estimators) <= _FROM_EXTREMES:
        tick = partial(work.progress, "histograms")
        parts = first_of_each(split.estimating, _COUNTED)
        for entries in watch_entries(index, extremes.size, parts, tick=tick):
            for name, values in entries.items():
                histograms.update(name, values)
    return {name: estimate(estimators, name, histograms, settings.percentile) for name in roots}


def first_of_each(parts: Sequence[Samples], count: int) -> list[Samples]:
    """About ``count`` samples from the beginnings of all parts."""
    rows = [part.columns[0].shape[0] for part in parts]
    share = min(1.0, count / sum(rows))
    return [rows_of(p, 0, math.ceil(share * r)) for p, r in zip(parts, rows, strict=True) if r]
