"""Smaller versions of accurate candidates over a budget: fewer channels, ranks and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edgekit.bundle.results import Candidate, Rejection
from edgekit.pass_settings import LowRank, PruneChannels, PruneWeights
from edgekit.pipeline.search.candidate_filters import (
    BUDGETS,
    LATENCY,
    STRUCTURE,
    TRANSFER,
    compute_excess,
    compute_usage,
    find_binding_budget,
    find_nearest_candidates,
    find_unshrunk,
    has_failed,
    is_done,
)
from edgekit.pipeline.search.fewer_bits import (
    ATTEMPTS,
    LIGHTER,
    propose_fewer_bits,
    propose_fewer_bits_of_smaller,
    propose_half_channels_and_bits,
)
from edgekit.pipeline.search.recipe_names import find_low_bit_settings, find_settings
from edgekit.pipeline.search.recipes import (
    Terms,
    Tried,
    can_run,
    find_checks,
    insert_step,
    is_accurate,
)
from edgekit.recipe import Recipe

# A graph is made smaller than its budget requires: part of its cost does not shrink.
_RESERVE = 0.9
# Smallest part of a model that an attempt keeps; smaller ones are never accurate enough.
_LEAST = 0.1
# Bounds of the exponent in a power law from the kept part to the usage of a budget.
_FLATTEST, _STEEPEST = 0.3, 3.0
# Bits of an int8 weight in a packed file, and the sparsities that are tried.
_INT8_BITS = 6.0
_SPARSITIES = tuple(n / 20 for n in range(2, 19))

S = TypeVar("S", PruneChannels, LowRank, PruneWeights)


def propose_fewer_channels(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer channels if all accurate candidates are too slow or too large for the device.

    The number depends on how far the nearest int8 candidates exceed the budget. More are removed if
    that is not enough and the accuracy holds, and fewer if it does not hold and there is room.
    """
    return _propose_attempt(tried, terms, _CHANNELS)


def propose_fewer_channels_of_low_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer channels of accurate low-bit candidates over the transfer budget."""
    return _propose_attempt(tried, terms, _CHANNELS_OF_FEW_BITS)


def propose_fewer_channels_for_transfer(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer channels of 8-bit candidates if low bits are too large or not accurate."""
    return _propose_attempt(tried, terms, _CHANNELS_TO_SEND)


def propose_sparsity(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose sparse weights if fewer bits lose too much accuracy for the transfer budget."""
    return (
        _propose_attempt(tried, terms, _ZEROS) if has_failed(tried, find_low_bit_settings) else ()
    )


def propose_low_rank(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose low-rank products, once, if fewer channels and fewer bits are not enough."""
    return _propose_attempt(tried, terms, _RANKS)


@dataclass(frozen=True, kw_only=True)
class _Reduction(Generic[S]):
    """Way to make a graph smaller by one pass.

    Attributes:
        kind: type of the pass's settings.
        attempts: number of attempts.
        budgets: names of the budgets that it may meet.
        few_bits: whether it applies to graphs with low-bit weights.
        settings: builds settings from the part to keep and the name of the binding budget.
        left: returns the kept part from settings.
    """

    kind: type[S]
    attempts: int
    budgets: tuple[str, ...]
    settings: Callable[[float, str], S]
    left: Callable[[S], float]
    few_bits: bool = False

    def iter_attempts(self, recipes: Tried) -> Iterator[tuple[Candidate | Rejection, S]]:
        """Yield the attempts with this pass on graphs of the right bits, in order."""
        for each in recipes:
            found = find_settings(each.recipe, self.kind)
            if (
                found is not None
                and (find_low_bit_settings(each.recipe) is not None) == self.few_bits
            ):
                yield each, found


def _propose_attempt(tried: Tried, terms: Terms, way: _Reduction[S]) -> tuple[Recipe, ...]:
    """Propose the next attempt of a way: from its last attempt, or from int8."""
    if is_done(tried):
        return ()
    known = [(t, way.left(settings)) for t, settings in way.iter_attempts(tried)]
    if len({left for _, left in known}) >= way.attempts:
        return ()
    whole = find_unshrunk(tried, few=way.few_bits)
    points = [_make_attempt(1.0, whole, way.budgets)]
    for part in dict.fromkeys(left for _, left in known):
        pool = [t for t, left in known if left == part and isinstance(t, Candidate) and can_run(t)]
        points.append(_make_attempt(part, pool, way.budgets))
    near, left = points[-1].near, _choose_next_part(points)
    if not near or not _LEAST <= left < 1:
        return ()
    settings = way.settings(left, find_binding_budget(near, way.budgets))
    return tuple(insert_step(_fit_to_transfer(c, terms), settings, terms) for c in near)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One attempt of a way.

    Attributes:
        left: the kept part of the model.
        near: its nearest candidates, accurate ones if there are any.
        used: their usage of the budget, relative to the limit.
        good: whether they are accurate.
    """

    left: float
    near: list[Candidate]
    used: float
    good: bool


def _make_attempt(left: float, pool: list[Candidate], budgets: tuple[str, ...]) -> _Attempt:
    good = [c for c in pool if is_accurate(c)]
    near = find_nearest_candidates(good or pool, budgets)
    used = min((compute_usage(c, budgets) for c in near), default=1.0)
    return _Attempt(left=left, near=near, used=used, good=bool(good))


def _choose_next_part(points: list[_Attempt]) -> float:
    """Return the part of the model to keep next; 1 if no other part is worth an attempt.

    The part shrinks if an accurate attempt exceeds the budget. It grows if no attempt is accurate
    and the last one stays well below the budget. It lies between two attempts if one removed too
    little and the other too much.
    """
    last = points[-1]
    heavy = [p for p in points if p.good and p.used > 1]
    spoilt = [p for p in points if not p.good and p.near]
    if spoilt and not heavy:
        return 1.0
    if not (last.used > 1 if last.good else last.used < LIGHTER**2):
        return 1.0
    most = min((p.left for p in heavy), default=1.0)
    least = max((p.left for p in spoilt), default=0.0)
    if spoilt:
        above, below = min(heavy, key=lambda p: p.left), max(spoilt, key=lambda p: p.left)
        aim = below.left * (LIGHTER / below.used) ** (1 / _estimate_slope(above, below))
    else:
        aim = last.left * _RESERVE / last.used
    return aim if least < round(aim, 2) < most else 1.0


def _estimate_slope(before: _Attempt, after: _Attempt) -> float:
    """Return the exponent of the power law from the kept part to the usage, within bounds."""
    slope = math.log(before.used / after.used) / math.log(before.left / after.left)
    return min(max(slope, _FLATTEST), _STEEPEST)


def _fit_to_transfer(candidate: Candidate, terms: Terms) -> Recipe:
    """Return the candidate's recipe, with low-bit weights limited to the transfer budget."""
    few, lines = find_low_bit_settings(candidate.recipe), find_checks(candidate, TRANSFER)
    over = compute_excess(candidate, lines[0].limit) if lines else 1.0
    if few is None or few.most_bytes is None or over <= 1:
        return candidate.recipe
    room = int(few.most_bytes * LIGHTER / over)
    return insert_step(candidate.recipe, replace(few, most_bytes=room), terms)


def _compute_entropy_left(sparsity: float) -> float:
    """Return the part of the transfer bytes left at a sparsity of int8 weights.

    The positions of the zeros take bits as well: the entropy of a biased coin (Shannon 1948).
    """
    if sparsity <= 0:
        return 1.0
    which = -sparsity * math.log2(sparsity) - (1 - sparsity) * math.log2(1 - sparsity)
    return (which + (1 - sparsity) * _INT8_BITS) / _INT8_BITS


def _choose_sparsity(left: float) -> float:
    return next((s for s in _SPARSITIES if _compute_entropy_left(s) <= left), _SPARSITIES[-1])


_CHANNELS = _Reduction(
    kind=PruneChannels,
    attempts=ATTEMPTS,
    budgets=STRUCTURE,
    settings=lambda left, _: PruneChannels(remove=round(1 - left, 2)),
    left=lambda s: 1 - s.remove,
)
_CHANNELS_OF_FEW_BITS = replace(_CHANNELS, budgets=(TRANSFER,), few_bits=True)
# Separate from the attempts for the other budgets.
_CHANNELS_TO_SEND = replace(_CHANNELS, budgets=(TRANSFER,), attempts=2 * ATTEMPTS)
_RANKS = _Reduction(
    kind=LowRank,
    attempts=1,
    budgets=BUDGETS,
    settings=lambda left, budget: LowRank(
        keep=round(left, 2), of="macs" if budget == LATENCY else "parameters"
    ),
    left=lambda s: s.keep,
)
_ZEROS = _Reduction(
    kind=PruneWeights,
    attempts=ATTEMPTS,
    budgets=(TRANSFER,),
    settings=lambda left, _: PruneWeights(sparsity=_choose_sparsity(left)),
    left=lambda s: _compute_entropy_left(s.sparsity),
)

# Methods, most likely to keep the accuracy first.
STAGES = (
    propose_fewer_channels,
    propose_fewer_bits,
    propose_fewer_channels_of_low_bits,
    propose_fewer_channels_for_transfer,
    propose_fewer_bits_of_smaller,
    propose_half_channels_and_bits,
    propose_sparsity,
    propose_low_rank,
)
