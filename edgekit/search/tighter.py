"""Smaller versions of accurate candidates over a budget: fewer bits, channels, ranks, weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edgekit.recipe import LowRank, Prune, PruneChannels, QuantizeWeights, Recipe
from edgekit.results import MIB, Candidate, Rejected
from edgekit.search.forms import INT8, few_bits, is_plain, is_shrunk, settings_of, storage
from edgekit.search.terms import Terms, Tried, accurate, checks, holds, made, runs, smaller

# Attempts at a file that came out too large, and the safety factor on its next size.
_ATTEMPTS, _LIGHTER = 3, 0.97
# A graph is made smaller than its budget requires: part of its cost does not shrink.
_RESERVE = 0.9
# Smallest part of a model that an attempt keeps; smaller ones are never accurate enough.
_LEAST = 0.1
# Bounds of the exponent in a power law from the kept part to the usage of a budget.
_FLATTEST, _STEEPEST = 0.3, 3.0
# Candidates with a usage up to this factor above the smallest one are made smaller with it.
_NEAR = 1.1

_TRANSFER = "transfer_mib"
_LATENCY = "latency_p95_ms"
_STRUCTURE = (_LATENCY, "peak_rss_mib", "model_mib")
_BUDGETS = (*_STRUCTURE, _TRANSFER)

# Bits of an int8 weight in a packed file, and the sparsities that are tried.
_INT8_BITS = 6.0
_SPARSITIES = tuple(n / 20 for n in range(2, 19))

S = TypeVar("S", PruneChannels, LowRank, Prune)


# ---------------------------------------------------------------- fewer bits


def fewer_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer bits if every accurate candidate is over the transfer budget.

    The low-bit weights are tried with the int8 storage types that were accurate; if channels had to
    be removed, with the smaller graphs.
    """
    int8 = [c for c in _unshrunk(tried, few=False) if storage(c.recipe) != "float"]
    fits = [c for c in int8 if holds(c, *_STRUCTURE)]
    return _with_room(tried, terms, fits or _small_enough(tried, of=PruneChannels) or int8)


def fewer_bits_of_smaller(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer bits of accurate graphs of fewer channels or ranks over the transfer budget."""
    for kind in (PruneChannels, LowRank):
        forms = _small_enough(tried, of=kind)
        part = min((_part_left(c.recipe, kind) for c in forms), default=1.0)
        forms = [c for c in forms if _part_left(c.recipe, kind) == part]
        if recipes := _with_room(tried, terms, forms):
            return recipes
    return ()


def some_channels_and_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose half of the channels that were too many to remove, with fewer bits.

    It is tried if neither of the two alone is accurate and small enough.
    """
    if _is_done(tried) or not _failed(tried, few_bits):
        return ()
    lost = made(tried, lambda of: _part_left(of, PruneChannels) < 1 and few_bits(of) is None)
    if not lost or any(accurate(c) for c in lost):
        return ()
    half = (1 + max(_part_left(c.recipe, PruneChannels) for c in lost)) / 2
    settings = PruneChannels(remove=round(1 - half, 2))
    forms = _nearest(_unshrunk(tried, few=False), (_TRANSFER,))
    shrunk = [replace(c, recipe=smaller(c.recipe, settings, terms)) for c in forms]
    return _with_room(tried, terms, shrunk)


def _with_room(tried: Tried, terms: Terms, forms: Sequence[Candidate]) -> tuple[Recipe, ...]:
    """Return these recipes with as many bits as fit the transfer budget.

    If the budget is below the smallest size that they reach, that size is tried once. If it loses
    too much accuracy, a size between it and 8 bits is tried: the result may be nearest to the
    budgets, or continue with fewer channels.
    """
    limits = [line.limit for c in forms for line in checks(c, _TRANSFER)]
    if not limits or any(holds(c, _TRANSFER) and is_plain(c.recipe) for c in forms):
        return ()
    if _is_done(tried):
        return ()
    refused = _refused_rooms(tried, forms, terms)
    if len(refused) >= _ATTEMPTS:
        return ()
    room, least = _room(forms[0], limits[0]), max(refused.values(), default=0)
    for _ in range(_ATTEMPTS):
        room = max(room, least)
        recipes = tuple(_low_bits(c.recipe, room, terms) for c in forms)
        known = [t for t in tried if t.recipe in recipes]
        if not known:
            return recipes
        heavy = [t for t in known if isinstance(t, Candidate) and not holds(t, _TRANSFER)]
        if room == least:  # they cannot be smaller
            lost = not any(isinstance(t, Candidate) and accurate(t) for t in known)
            return _between(least, forms, terms) if lost else ()
        if len(heavy) < len(known):
            return ()  # one fits, or a recipe was rejected
        over = min(_size_over(t, limits[0]) for t in heavy)
        room = int(room * _LIGHTER / over)
    return ()


def _between(least: int, forms: Sequence[Candidate], terms: Terms) -> tuple[Recipe, ...]:
    """Return these recipes at the geometric mean of their smallest and their 8-bit size."""
    most = min(c.measurements[0].transfer_bytes for c in forms)
    return tuple(_low_bits(c.recipe, math.isqrt(least * most), terms) for c in forms)


def _refused_rooms(tried: Tried, forms: Sequence[Candidate], terms: Terms) -> dict[int, int]:
    """Map each refused size to the smallest transfer size that these recipes reach."""
    found: dict[int, int] = {}
    for each in tried:
        few = few_bits(each.recipe)
        if few is None or few.most_bytes is None or not isinstance(each, Rejected):
            continue
        recipes = [_low_bits(c.recipe, few.most_bytes, terms) for c in forms]
        if each.least_bytes is not None and each.recipe in recipes:
            found[few.most_bytes] = each.least_bytes
    return found


def _room(candidate: Candidate, limit_mib: float) -> int:
    """Return the bytes left for the model file within the transfer limit."""
    return max(int(limit_mib * MIB) - candidate.measurements[0].overhead_bytes, 1)


def _size_over(candidate: Candidate, limit_mib: float) -> float:
    """Return the size of a candidate's file relative to the bytes left for it."""
    return candidate.measurements[0].transfer_bytes / _room(candidate, limit_mib)


def _low_bits(of: Recipe, room: int, terms: Terms) -> Recipe:
    few = QuantizeWeights(most_bytes=room, weight_bits=terms.weight_bits)
    return smaller(of, few, terms)


def _small_enough(tried: Tried, *, of: type[PruneChannels] | type[LowRank]) -> list[Candidate]:
    """Return accurate 8-bit graphs, made smaller, that hold all budgets but the transfer."""
    shrunk = made(tried, lambda r: settings_of(r, of) is not None and few_bits(r) is None)
    return [c for c in shrunk if runs(c) and accurate(c) and holds(c, *_STRUCTURE)]


def _part_left(of: Recipe, kind: type[PruneChannels] | type[LowRank]) -> float:
    found = settings_of(of, kind)
    if isinstance(found, PruneChannels):
        return 1 - found.remove
    return found.keep if isinstance(found, LowRank) else 1.0


# ---------------------------------------------------------------- fewer channels, ranks, weights


def fewer_channels(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer channels if all accurate candidates are too slow or too large for the device.

    The number depends on how far the nearest int8 candidates exceed the budget. More are removed if
    that is not enough and the accuracy holds, and fewer if it does not hold and there is room.
    """
    return _shrunk(tried, terms, _CHANNELS)


def fewer_of_few_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer channels of accurate low-bit candidates over the transfer budget."""
    return _shrunk(tried, terms, _CHANNELS_OF_FEW_BITS)


def fewer_channels_to_send(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer channels of 8-bit candidates if low bits are too large or not accurate."""
    return _shrunk(tried, terms, _CHANNELS_TO_SEND)


def zeros(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose sparse weights if fewer bits lose too much accuracy for the transfer budget."""
    return _shrunk(tried, terms, _ZEROS) if _failed(tried, few_bits) else ()


def lower_ranks(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose low-rank products, once, if fewer channels and fewer bits are not enough."""
    return _shrunk(tried, terms, _RANKS)


def _failed(tried: Tried, which: Callable[[Recipe], object]) -> bool:
    """Return whether recipes of a kind were tried and none is accurate; size refusals count."""
    own = [t for t in tried if which(t.recipe)]
    good = [t for t in own if isinstance(t, Candidate) and accurate(t)]
    refused = any(isinstance(t, Rejected) and t.least_bytes is not None for t in own)
    return bool(own) and not any(holds(t, _TRANSFER) or not refused for t in good)


def _is_done(tried: Tried) -> bool:
    """Return whether one candidate is accurate and meets every measured budget."""
    return any(
        runs(t) and accurate(t) and holds(t, *_BUDGETS) for t in tried if isinstance(t, Candidate)
    )


@dataclass(frozen=True, kw_only=True)
class _Way(Generic[S]):
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

    def tried(self, recipes: Tried) -> Iterator[tuple[Candidate | Rejected, S]]:
        """Yield the attempts with this pass on graphs of the right bits, in order."""
        for each in recipes:
            found = settings_of(each.recipe, self.kind)
            if found is not None and (few_bits(each.recipe) is not None) == self.few_bits:
                yield each, found


def _shrunk(tried: Tried, terms: Terms, way: _Way[S]) -> tuple[Recipe, ...]:
    """Propose the next attempt of a way: from its last attempt, or from int8."""
    if _is_done(tried):
        return ()
    known = [(t, way.left(settings)) for t, settings in way.tried(tried)]
    if len({left for _, left in known}) >= way.attempts:
        return ()
    whole = _unshrunk(tried, few=way.few_bits)
    points = [_point(1.0, whole, way.budgets)]
    for part in dict.fromkeys(left for _, left in known):
        pool = [t for t, left in known if left == part and isinstance(t, Candidate) and runs(t)]
        points.append(_point(part, pool, way.budgets))
    near, left = points[-1].near, _aim(points)
    if not near or not _LEAST <= left < 1:
        return ()
    settings = way.settings(left, _binding(near, way.budgets))
    return tuple(smaller(_lighter(c, terms), settings, terms) for c in near)


@dataclass(frozen=True, kw_only=True)
class _Point:
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


def _point(left: float, pool: list[Candidate], budgets: tuple[str, ...]) -> _Point:
    good = [c for c in pool if accurate(c)]
    near = _nearest(good or pool, budgets)
    used = min((_used(c, budgets) for c in near), default=1.0)
    return _Point(left=left, near=near, used=used, good=bool(good))


def _aim(points: list[_Point]) -> float:
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
    if not (last.used > 1 if last.good else last.used < _LIGHTER**2):
        return 1.0
    most = min((p.left for p in heavy), default=1.0)
    least = max((p.left for p in spoilt), default=0.0)
    if spoilt:
        above, below = min(heavy, key=lambda p: p.left), max(spoilt, key=lambda p: p.left)
        aim = below.left * (_LIGHTER / below.used) ** (1 / _slope(above, below))
    else:
        aim = last.left * _RESERVE / last.used
    return aim if least < round(aim, 2) < most else 1.0


def _slope(before: _Point, after: _Point) -> float:
    """Return the exponent of the power law from the kept part to the usage, within bounds."""
    slope = math.log(before.used / after.used) / math.log(before.left / after.left)
    return min(max(slope, _FLATTEST), _STEEPEST)


def _nearest(pool: list[Candidate], budgets: tuple[str, ...]) -> list[Candidate]:
    """Return the candidates whose usage is little above the smallest one."""
    used = {c.key: _used(c, budgets) for c in pool}
    least = min(used.values(), default=1.0)
    return [c for c in pool if used[c.key] <= _NEAR * least]


def _binding(near: list[Candidate], budgets: tuple[str, ...]) -> str:
    """Return the name of the budget with the highest usage; empty if none was measured."""
    lines = [c for each in near for c in checks(each, *budgets) if c.measured is not None]
    return max(lines, key=lambda c: (c.measured or 0.0) / c.limit).name if lines else ""


def _unshrunk(tried: Tried, *, few: bool) -> list[Candidate]:
    """Return accurate unpruned candidates of few or 8 bits; float ones if none has 8 bits."""
    good = [c for c in made(tried, lambda of: not is_shrunk(of)) if runs(c) and accurate(c)]
    if few:
        return [c for c in good if few_bits(c.recipe)]
    plain = [c for c in good if not few_bits(c.recipe)]
    int8 = [c for c in plain if storage(c.recipe) in (*INT8, "int16x8", "weights")]
    return int8 or [c for c in plain if storage(c.recipe) == "float"]


def _lighter(candidate: Candidate, terms: Terms) -> Recipe:
    """Return the candidate's recipe, with low-bit weights limited to the transfer budget."""
    few, lines = few_bits(candidate.recipe), checks(candidate, _TRANSFER)
    over = _size_over(candidate, lines[0].limit) if lines else 1.0
    if few is None or few.most_bytes is None or over <= 1:
        return candidate.recipe
    room = int(few.most_bytes * _LIGHTER / over)
    return smaller(candidate.recipe, replace(few, most_bytes=room), terms)


def _used(candidate: Candidate, budgets: tuple[str, ...]) -> float:
    """Return the highest usage of a budget relative to its limit; 1 if nothing was measured."""
    known = (c.measured / c.limit for c in checks(candidate, *budgets) if c.measured is not None)
    return max(known, default=1.0)


def _entropy_left(sparsity: float) -> float:
    """Return the part of the transfer bytes left at a sparsity of int8 weights.

    The positions of the zeros take bits as well: the entropy of a biased coin (Shannon 1948).
    """
    if sparsity <= 0:
        return 1.0
    which = -sparsity * math.log2(sparsity) - (1 - sparsity) * math.log2(1 - sparsity)
    return (which + (1 - sparsity) * _INT8_BITS) / _INT8_BITS


def _sparsity(left: float) -> float:
    return next((s for s in _SPARSITIES if _entropy_left(s) <= left), _SPARSITIES[-1])


_CHANNELS = _Way(
    kind=PruneChannels,
    attempts=_ATTEMPTS,
    budgets=_STRUCTURE,
    settings=lambda left, _: PruneChannels(remove=round(1 - left, 2)),
    left=lambda s: 1 - s.remove,
)
_CHANNELS_OF_FEW_BITS = replace(_CHANNELS, budgets=(_TRANSFER,), few_bits=True)
# Separate from the attempts for the other budgets.
_CHANNELS_TO_SEND = replace(_CHANNELS, budgets=(_TRANSFER,), attempts=2 * _ATTEMPTS)
_RANKS = _Way(
    kind=LowRank,
    attempts=1,
    budgets=_BUDGETS,
    settings=lambda left, budget: LowRank(
        keep=round(left, 2), of="macs" if budget == _LATENCY else "parameters"
    ),
    left=lambda s: s.keep,
)
_ZEROS = _Way(
    kind=Prune,
    attempts=_ATTEMPTS,
    budgets=(_TRANSFER,),
    settings=lambda left, _: Prune(sparsity=_sparsity(left)),
    left=lambda s: _entropy_left(s.sparsity),
)

# Ways in the order of how likely they keep the accuracy.
STAGES = (
    fewer_channels,
    fewer_bits,
    fewer_of_few_bits,
    fewer_channels_to_send,
    fewer_bits_of_smaller,
    some_channels_and_bits,
    zeros,
    lower_ranks,
)
