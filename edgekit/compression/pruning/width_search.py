"""Width search: how much of each dependency group to prune, with the least damage for a size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.compression.numerics import Doubles
from edgekit.compression.pruning.dependency import Channels, Family
from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.importance import Ranking

# Share of a dependency group that always stays.
LEAST_SHARE = 0.125
_MOST_STEPS = 16
# Dependency groups of at least this many times ``align`` channels can afford coarser steps.
_WIDE = 8
# Number of steps to look ahead, as the next one may save nothing by itself.
_AHEAD = 4
# Number of channels that onnxruntime's convolutions compute at once on AVX-512
# (MlasNchwcGetBlockSize).
_BLOCK = 16
_ROUNDING = 1e-9
# Largest number of steps of single dependency groups that start a descent.
_MOST_STARTS = 64

# Size of a state, which is the step of each ladder.
Size = Callable[[Sequence[int]], float]


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Pruning options of one dependency group: numbers of removed channel groups, with damages."""

    family: Family
    ranking: Ranking
    steps: tuple[int, ...]  # from 0 on
    damages: Doubles

    def get_removed(self, step: int) -> tuple[int, ...]:
        """Return the channel groups that are removed at a step."""
        return self.ranking.order[: self.steps[step]]


def list_removal_counts(family: Family, align: int) -> tuple[int, ...]:
    """List the numbers of removable channel groups that keep the width a multiple of ``align``.

    A wide dependency group keeps multiples of twice ``align``, which the blocked convolutions of
    AVX-512 want. A width that is no multiple keeps the largest power of two that divides both
    numbers.

    Args:
        family: the dependency group.
        align: number of channels that the width should stay a multiple of.

    Returns:
        Ascending numbers from 0; the smallest width is an eighth of the dependency group.
    """
    count = len(family.groups)
    if align > 1 and count * family.width >= _WIDE * align:
        align *= 2
    unit = align // math.gcd(align, family.width)
    while count % unit:
        unit //= 2 if unit % 2 == 0 else unit
    least = max(unit, math.ceil(LEAST_SHARE * count / unit) * unit)
    every = list(range(0, count - least + 1, unit))
    if len(every) > _MOST_STEPS:
        places = np.unique(np.linspace(0, len(every) - 1, _MOST_STEPS).round().astype(int))
        every = [every[i] for i in places]
    return tuple(every)


class Sizes:
    """Multiply-accumulates that remain at each state of the ladders, computed without the graph."""

    def __init__(self, channels: Channels, ladders: Sequence[Ladder]) -> None:
        self._channels = channels
        self._ladders = ladders
        self._products = channels.walk.products
        self._of = {number: p for p, each in enumerate(ladders) for number in each.family.groups}
        self._touching = [
            tuple(sorted({p for axis in each.axes for p in self._ladders_of(axis)}))
            for each in self._products
        ]
        self._known: list[dict[tuple[int, ...], tuple[float, float]]] = [{} for _ in self._products]

    def macs(self, state: Sequence[int]) -> float:
        """Count the multiply-accumulates that remain."""
        return float(sum(macs for macs, _ in self._iter_counts(state)))

    def count_padded_macs(self, state: Sequence[int]) -> float:
        """Count the multiply-accumulates that the runtime computes, with padding.

        Convolutions of onnxruntime compute whole blocks of channels, so 24 channels take as long as
        32. Fewer channels than a block take less time than a block, but more than their share.
        """
        return sum(paced for _, paced in self._iter_counts(state))

    def _iter_counts(self, state: Sequence[int]) -> Iterator[tuple[float, float]]:
        """Yield the multiply-accumulates of each product, without and with padding."""
        for number, (touching, known) in enumerate(zip(self._touching, self._known, strict=True)):
            mark = tuple([state[place] for place in touching])
            found = known.get(mark)
            if found is None:
                found = known[mark] = self._count_product(number, state)
            yield found

    def _count_product(self, number: int, state: Sequence[int]) -> tuple[float, float]:
        product = self._products[number]
        widths = [self._width(axis, state) for axis in product.axes]
        padded = [_pad_width(w, len(axis)) for w, axis in zip(widths, product.axes, strict=True)]
        return product.constant * math.prod(widths), product.constant * math.prod(padded)

    def _width(self, axis: Axis, state: Sequence[int]) -> int:
        places = self._ladders_of(axis)
        going = [g for place in places for g in self._ladders[place].get_removed(state[place])]
        return int(self._channels.find_kept(axis, going).sum())

    def _ladders_of(self, axis: Axis) -> list[int]:
        members = set(self._channels.members(axis).ravel().tolist())
        return sorted({self._of[m] for m in members if m in self._of})


def _pad_width(width: int, whole: int) -> float:
    """Scale ``whole`` channels by the share of time that ``width`` of them take."""
    return whole * _count_computed_channels(width) / max(_count_computed_channels(whole), 1)


def _count_computed_channels(width: int) -> float:
    if width < _BLOCK:
        return (width + _BLOCK) / 2
    return -(-width // _BLOCK) * _BLOCK


class WidthSearch:
    """Greedy search for a step of each ladder with little total damage.

    Each iteration takes the step, of one dependency group or several at once, with the least
    damage per saving. Steps that turned out needless are undone at the end. Several starts are
    tried, because a cheap first step may lead to expensive ones, and the least total damage wins.
    The sequence of steps does not depend on the target size, so it is searched once.

    Args:
        ladders: with damages that count from the whole model.
        size: returns the size that remains at a state.
        pace: returns the time that remains; a saving of time counts as much as one of size.
    """

    def __init__(self, ladders: Sequence[Ladder], size: Size, *, pace: Size) -> None:
        self._ladders = ladders
        self._size = size
        self._pace = pace
        self._next: dict[tuple[int, ...], tuple[int, int] | None] = {}

    def allocate(self, most: float) -> list[int]:
        """Return the step of each ladder; the last steps where ``most`` cannot be reached.

        Args:
            most: largest size that may remain.
        """
        found = [self._descend(start, most) for start in _list_starts(self._ladders)]
        return min(
            found, key=lambda state: (self._size(state) > most, sum_damages(self._ladders, state))
        )

    def _descend(self, start: Sequence[int], most: float) -> list[int]:
        state = list(start)
        while self._size(state) > most:
            best = self._find_cheapest(state)
            if best is None:
                return state
            state[best[0]] = best[1]
        return _undo_needless_steps(self._ladders, state, self._size, most)

    def _find_cheapest(self, state: list[int]) -> tuple[int, int] | None:
        mark = tuple(state)
        if mark not in self._next:
            self._next[mark] = _find_cheapest(self._ladders, state, self._size, self._pace)
        return self._next[mark]


def _list_starts(ladders: Sequence[Ladder]) -> list[list[int]]:
    """List the start states: the whole model, and single dependency groups already narrowed."""
    every = [(p, step) for p, each in enumerate(ladders) for step in range(1, len(each.steps))]
    picked = every[:: -(-len(every) // _MOST_STARTS)] if every else []
    return [
        [0] * len(ladders),
        *([step if p == place else 0 for p in range(len(ladders))] for place, step in picked),
    ]


def sum_damages(ladders: Sequence[Ladder], state: Sequence[int]) -> float:
    """Sum the damages of all ladders at a state."""
    return sum(float(each.damages[step]) for each, step in zip(ladders, state, strict=True))


def choose_uniform_steps(ladders: Sequence[Ladder], size: Size, most: float) -> list[int]:
    """Choose about the same share of each ladder so that at most ``most`` remains.

    One ladder after the other goes to the next share that any of them has, until that is enough.
    Alignment may make the shares differ.

    Args:
        ladders: the ladders.
        size: returns the size that remains at a state.
        most: largest size that may remain.
    """
    shares = sorted({s / len(ladder.family.groups) for ladder in ladders for s in ladder.steps})
    state = [0] * len(ladders)
    for share in shares:
        for place, ladder in enumerate(ladders):
            if size(state) <= most:
                return state
            state[place] = _find_step_at_share(ladder, share)
    return state


def _find_step_at_share(ladder: Ladder, share: float) -> int:
    room = share * len(ladder.family.groups) + _ROUNDING
    return max(i for i, count in enumerate(ladder.steps) if count <= room)


def _find_cheapest(
    ladders: Sequence[Ladder], state: list[int], size: Size, pace: Size
) -> tuple[int, int] | None:
    now, time = size(state), pace(state)
    best: tuple[float, int, int] | None = None
    for place, ladder in enumerate(ladders):
        for step in range(state[place] + 1, min(state[place] + _AHEAD, len(ladder.steps))):
            tried = [*state[:place], step, *state[place + 1 :]]
            left = size(tried)
            if left >= now:
                continue
            cost = max(float(ladder.damages[step] - ladder.damages[state[place]]), 0.0)
            saved = math.sqrt((now - left) / now * max((time - pace(tried)) / time, _ROUNDING))
            if best is None or cost / saved < best[0]:
                best = (cost / saved, place, step)
    return None if best is None else best[1:]


def _undo_needless_steps(
    ladders: Sequence[Ladder], state: list[int], size: Size, most: float
) -> list[int]:
    """Widen the narrowed dependency groups again while the size allows, the most damaging first."""
    again = True
    while again:
        again = False
        by_gain = sorted(
            (p for p in range(len(ladders)) if state[p]),
            key=lambda p: ladders[p].damages[state[p] - 1] - ladders[p].damages[state[p]],
        )
        for place in by_gain:
            tried = [*state[:place], state[place] - 1, *state[place + 1 :]]
            if size(tried) <= most:
                state, again = tried, True
                break
    return state


def collect_removed(ladders: Sequence[Ladder], state: Sequence[int]) -> list[int]:
    """Collect the channel groups that are removed at a state, over all ladders."""
    return [
        g for ladder, step in zip(ladders, state, strict=True) for g in ladder.get_removed(step)
    ]
