"""How far each family is cut: the least damage to the outputs for what must go."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.graphs.channels import Family
from edgekit.passes.grids import Doubles
from edgekit.passes.importance import Ranking

# Part of a family that always stays.
_LEAST_SHARE = 0.125
_MOST_STEPS = 16
# Times ``align``: families from which on it costs little to be coarser.
_WIDE = 8


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The ways to cut one family: how many of its groups go, and the damage of that."""

    family: Family
    ranking: Ranking
    steps: tuple[int, ...]  # from 0 on
    damages: Doubles

    def gone(self, step: int) -> tuple[int, ...]:
        """The groups that go."""
        return self.ranking.order[: self.steps[step]]


def steps_of(family: Family, align: int) -> tuple[int, ...]:
    """How many groups may go so that the width stays a multiple of ``align`` where it was one.

    Wide families keep multiples of twice that, which the blocked convolutions of AVX-512 want; of
    a width that is no multiple, the largest power of two in both counts.
    """
    count = len(family.groups)
    if count * family.width >= _WIDE * align:
        align *= 2
    unit = align // math.gcd(align, family.width)
    while count % unit:
        unit //= 2 if unit % 2 == 0 else unit
    least = max(unit, math.ceil(_LEAST_SHARE * count / unit) * unit)
    every = list(range(0, count - least + 1, unit))
    if len(every) > _MOST_STEPS:
        places = np.unique(np.linspace(0, len(every) - 1, _MOST_STEPS).round().astype(int))
        every = [every[i] for i in places]
    return tuple(every)


def allocate(
    ladders: Sequence[Ladder], size: Callable[[Collection[int]], float], most: float
) -> list[int]:
    """A step for each ladder, of little damage in all, so that what is left is at most ``most``.

    One family after the other goes down the step, or several at once, that costs least for what
    it saves; then those that turned out needless are taken back.

    Args:
        ladders: with damages that count from the whole model.
        size: what is left when groups go.
        most: of it.

    Returns:
        For each ladder its step; the last ones where ``most`` cannot be had.
    """
    state = [0] * len(ladders)
    now = size(())
    while now > most:
        best = _cheapest(ladders, state, now, size)
        if best is None:
            return state
        place, step, now = best
        state[place] = step
    return _taken_back(ladders, state, size, most)


def _cheapest(
    ladders: Sequence[Ladder],
    state: list[int],
    now: float,
    size: Callable[[Collection[int]], float],
) -> tuple[int, int, float] | None:
    best: tuple[float, int, int, float] | None = None
    for place, ladder in enumerate(ladders):
        for step in range(state[place] + 1, min(state[place] + 4, len(ladder.steps))):
            left = size(gone(ladders, [*state[:place], step, *state[place + 1 :]]))
            if left >= now:
                continue
            cost = ladder.damages[step] - ladder.damages[state[place]]
            price = max(cost, 0.0) / (now - left)
            if best is None or price < best[0]:
                best = (price, place, step, left)
    return None if best is None else best[1:]


def _taken_back(
    ladders: Sequence[Ladder],
    state: list[int],
    size: Callable[[Collection[int]], float],
    most: float,
) -> list[int]:
    again = True
    while again:
        again = False
        by_gain = sorted(
            (p for p in range(len(ladders)) if state[p]),
            key=lambda p: ladders[p].damages[state[p] - 1] - ladders[p].damages[state[p]],
        )
        for place in by_gain:
            tried = [*state[:place], state[place] - 1, *state[place + 1 :]]
            if size(gone(ladders, tried)) <= most:
                state, again = tried, True
                break
    return state


def gone(ladders: Sequence[Ladder], state: Sequence[int]) -> list[int]:
    """The groups that go, of all ladders."""
    return [g for ladder, step in zip(ladders, state, strict=True) for g in ladder.gone(step)]
