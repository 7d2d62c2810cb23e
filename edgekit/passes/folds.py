"""Split of calibration samples into estimation and validation samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.data import rows_of, spread
from edgekit_agent.samples import Samples

_HELD_OUT = 16
# With fewer samples all of them are needed to estimate ranges.
_FEW = 64


@dataclass(frozen=True, kw_only=True)
class Split:
    """Calibration samples for estimating parameters, and samples held out for judging them."""

    estimating: Sequence[Samples]
    judging: Sequence[Samples]


@dataclass(frozen=True, kw_only=True)
class Folds:
    """The samples for the final parameters, and the splits for decisions.

    Many samples give one split with a few held-out samples. Few samples are cross-validated: each
    half judges parameters estimated on the other, and all samples give the final parameters.
    """

    estimating: Sequence[Samples]
    splits: Sequence[Split]

    @property
    def judging(self) -> list[Samples]:
        """The held-out samples of all splits."""
        return [part for split in self.splits for part in split.judging]


def fold_samples(samples: Samples, most: int) -> Folds:
    """Split samples for estimating and judging, with about ``most`` samples for estimating."""
    total = samples.columns[0].shape[0]
    if total >= _FEW:
        split = _hold_out(samples, total, most)
        return Folds(estimating=split.estimating, splits=[split])
    if total < 2:
        return Folds(estimating=[samples], splits=[Split(estimating=[samples], judging=[samples])])
    halves = [[rows_of(samples, i, 1) for i in range(start, total, 2)] for start in (0, 1)]
    splits = [
        Split(estimating=mine, judging=other[:_HELD_OUT]) for mine, other in (halves, halves[::-1])
    ]
    return Folds(estimating=spread(samples, most), splits=splits)


def _hold_out(samples: Samples, total: int, most: int) -> Split:
    every = total // _HELD_OUT
    judging = [rows_of(samples, i * every, 1) for i in range(_HELD_OUT)]
    starts = [i * every + 1 for i in range(_HELD_OUT)]
    gaps = [
        rows_of(samples, start, end - start)
        for start, end in zip(starts, [*(s - 1 for s in starts[1:]), total], strict=True)
    ]
    share = max(most - _HELD_OUT, _HELD_OUT) // _HELD_OUT
    return Split(estimating=[part for gap in gaps for part in spread(gap, share)], judging=judging)
