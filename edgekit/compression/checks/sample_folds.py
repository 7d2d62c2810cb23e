"""Split of calibration samples into estimation and validation samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.data.subsets import count_samples, cut_parts, select_spread, to_parts
from edgekit_agent.samples import Samples

_HELD_OUT = 16
# With fewer samples, all of them are needed to estimate ranges.
_FEW = 64


@dataclass(frozen=True, kw_only=True)
class Split:
    """Calibration samples for estimating parameters, and samples held out for judging them."""

    estimating: Sequence[Samples]
    judging: Sequence[Samples]


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Samples for the final parameters, and splits for decisions.

    Many samples give one split with a few held-out samples. Few samples are cross-validated: each
    half judges parameters estimated on the other, and all samples give the final parameters.
    """

    estimating: Sequence[Samples]
    splits: Sequence[Split]

    @property
    def judging(self) -> list[Samples]:
        """Return the held-out samples of all splits."""
        return [part for split in self.splits for part in split.judging]


def fold_samples(samples: Samples | Sequence[Samples], most: int) -> Folds:
    """Split samples for estimating and judging, with about ``most`` samples for estimating.

    Args:
        samples: the calibration samples, in one part or several.
        most: largest number of samples for estimating.
    """
    parts = to_parts(samples)
    total = count_samples(parts)
    if total >= _FEW:
        split = _hold_out(parts, total, most)
        return Folds(estimating=split.estimating, splits=[split])
    if total < 2:
        return Folds(estimating=parts, splits=[Split(estimating=parts, judging=parts)])
    halves = [
        [each for i in range(start, total, 2) for each in cut_parts(parts, i, 1)]
        for start in (0, 1)
    ]
    splits = [
        Split(estimating=mine, judging=other[:_HELD_OUT]) for mine, other in (halves, halves[::-1])
    ]
    return Folds(estimating=select_spread(parts, most), splits=splits)


def _hold_out(parts: Sequence[Samples], total: int, most: int) -> Split:
    every = total // _HELD_OUT
    judging = [each for i in range(_HELD_OUT) for each in cut_parts(parts, i * every, 1)]
    starts = [i * every + 1 for i in range(_HELD_OUT)]
    gaps = [
        cut_parts(parts, start, end - start)
        for start, end in zip(starts, [*(s - 1 for s in starts[1:]), total], strict=True)
    ]
    share = max(most - _HELD_OUT, _HELD_OUT) // _HELD_OUT
    return Split(
        estimating=[part for gap in gaps for part in select_spread(gap, share)], judging=judging
    )
