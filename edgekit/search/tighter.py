"""What is accurate but over a budget is made smaller: fewer bits, channels, ranks, weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edgekit.recipe import LowRank, Prune, PruneChannels, QuantizeWeights, Recipe
from edgekit.results import MIB, Candidate
from edgekit.search.terms import (
    Terms,
    Tried,
    accurate,
    checks,
    holds,
    made,
    recipe,
    settings_of,
    smaller,
    start,
    twin,
)

# How often a file that came out too heavy is made anew, and how much lighter each time.
_ATTEMPTS, _LIGHTER = 3, 0.97
# A graph is made smaller than its budget asks: not all of its cost is in what goes.
_RESERVE = 0.9
# Where less than this part may stay, nothing as good is left.
_LEAST = 0.1
# Forms that miss by up to so much more than the nearest one are made smaller with it.
_NEAR = 1.1

_TRANSFER = "transfer_mib"
_STRUCTURE = ("latency_p95_ms", "peak_rss_mib", "model_mib")
_BUDGETS = (*_STRUCTURE, _TRANSFER)

# Bits that an int8 weight takes on its way, and the parts of them that may become zero.
_INT8_BITS = 6.0
_SPARSITIES = tuple(n / 20 for n in range(2, 19))

_LABELS = re.compile(r"^(int8|original|(pruned|low-rank|sparse)-\d+)(-|$)")

S = TypeVar("S", PruneChannels, LowRank, Prune)


def fewer_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Fewer bits where every accurate candidate is too heavy for its way to the device.

    The weights are made once and run in the forms that int8 was accurate in; of these, in the
    smaller ones where there had to be smaller ones.
    """
    int8 = [c for c in made(tried, "int8-") if accurate(c)]
    fits = [c for c in int8 if holds(c, *_STRUCTURE)]
    forms = fits or _small_enough(tried) or int8
    limits = [line.limit for c in forms for line in checks(c, _TRANSFER)]
    if not limits or any(holds(c, _TRANSFER) for c in forms):
        return ()
    room = int(limits[0] * MIB)
    for _ in range(_ATTEMPTS):
        recipes = tuple(_low_bits(c.recipe, room, terms) for c in forms)
        known = [t for t in tried if t.recipe in recipes]
        if not known:
            return recipes
        heavy = [t for t in known if isinstance(t, Candidate) and not holds(t, _TRANSFER)]
        if len(heavy) < len(known):
            return ()  # one travels, or there are no such weights
        least = min(t.measurements[0].transfer_bytes for t in heavy)
        room = int(room * _LIGHTER * limits[0] * MIB / least)
    return ()


def _small_enough(tried: Tried) -> list[Candidate]:
    """Graphs that were made smaller until all but their transfer held."""
    shrunk = made(tried, "pruned-", "low-rank-")
    return [c for c in shrunk if _usable(c) and holds(c, *_STRUCTURE)]


def _low_bits(of: Recipe, room: int, terms: Terms) -> Recipe:
    """The recipe of a candidate after its weights have got as few bits as there is room."""
    few = QuantizeWeights(most_bytes=room, weight_bits=terms.weight_bits)
    name = f"low-bits-{room // 1024}k-{of.name.removeprefix('int8-')}"
    return replace(of, name=name, steps=smaller(of, few))


def fewer_channels(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Fewer channels where all that is accurate is too slow, too large or takes too much memory.

    As many go as the nearest forms of int8 miss the budget by, and more as long as that is not
    enough and the accuracy holds.
    """
    return _shrunk(tried, terms, _CHANNELS)


def lower_ranks(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Products of low rank, once, where fewer channels and fewer bits are not enough."""
    return _shrunk(tried, terms, _RANKS)


def zeros(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Weights set to zero, where fewer bits lose too much accuracy for what may travel."""
    few = made(tried, "low-bits-")
    if not few or any(accurate(c) for c in few):
        return ()
    return _shrunk(tried, terms, _ZEROS)


@dataclass(frozen=True, kw_only=True)
class _Way(Generic[S]):
    """A pass that makes a graph smaller.

    Attributes:
        kind: its settings.
        attempts: how often it is tried, each time with less left.
        budgets: that it may meet.
        settings: that leave a part of what the budgets count.
        left: that part, of settings.
        label: of its recipes.
    """

    kind: type[S]
    attempts: int
    budgets: tuple[str, ...]
    settings: Callable[[float], S]
    left: Callable[[S], float]
    label: Callable[[S], str]


def _shrunk(tried: Tried, terms: Terms, way: _Way[S]) -> tuple[Recipe, ...]:
    """The next attempt of a way: from the smallest that it made so far, else from int8."""
    candidates = [t for t in tried if isinstance(t, Candidate) and _usable(t)]
    if any(holds(c, *_BUDGETS) for c in candidates):
        return ()
    known = {t.recipe.name: way.left(s) for t in tried if (s := settings_of(t.recipe, way.kind))}
    if len(set(known.values())) >= way.attempts:
        return ()
    least = min(known.values(), default=1.0)
    smallest = [c for c in candidates if known.get(c.recipe.name) == least]
    pool = smallest if known else _unshrunk(candidates)
    over = min((_over(c, way.budgets) for c in pool), default=1.0)
    part = least * _RESERVE / over
    if over <= 1 or part < _LEAST:
        return ()
    settings = way.settings(part)
    near = [c.recipe for c in pool if _over(c, way.budgets) <= _NEAR * over]
    return tuple(_with(r, settings, way.label(settings), terms) for r in near)


def _usable(candidate: Candidate) -> bool:
    """Whether it runs where it should, and nothing shows that it loses too much accuracy."""
    return accurate(candidate) and not (candidate.verdict and candidate.verdict.reasons)


def _unshrunk(candidates: list[Candidate]) -> list[Candidate]:
    """Forms of 8 bits; where none is accurate, those of the original."""
    int8 = [c for c in candidates if c.recipe.name.startswith(("int8-", "int16x8"))]
    return int8 or [c for c in candidates if c.recipe.name.startswith("original")]


def _over(candidate: Candidate, budgets: tuple[str, ...]) -> float:
    """How many times the limit it takes, where it misses most; 1 where it misses none."""
    failing = (c for c in checks(candidate, *budgets) if c.outcome == "fails" and c.measured)
    return max(((c.measured or 0) / c.limit for c in failing), default=1.0)


def _with(
    of: Recipe, settings: PruneChannels | LowRank | Prune, label: str, terms: Terms
) -> Recipe:
    if not of.steps:  # the original file itself
        of = recipe(of.name, terms, start(terms))
        of = twin(of, terms) if terms.source == "tflite" else of
    form = _LABELS.sub("", of.name)
    return replace(of, name=f"{label}-{form}" if form else label, steps=smaller(of, settings))


def _entropy_left(sparsity: float) -> float:
    """Part of the bytes on the way that is left when so many int8 weights are zero.

    Which ones they are takes bits of its own: the entropy of a coin with that bias (Shannon 1948).
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
    settings=lambda left: PruneChannels(remove=round(1 - left, 2)),
    left=lambda s: 1 - s.remove,
    label=lambda s: f"pruned-{100 * s.remove:.0f}",
)
_RANKS = _Way(
    kind=LowRank,
    attempts=1,
    budgets=_BUDGETS,
    settings=lambda left: LowRank(keep=round(left, 2)),
    left=lambda s: s.keep,
    label=lambda s: f"low-rank-{100 * s.keep:.0f}",
)
_ZEROS = _Way(
    kind=Prune,
    attempts=_ATTEMPTS,
    budgets=(_TRANSFER,),
    settings=lambda left: Prune(sparsity=_sparsity(left)),
    left=lambda s: _entropy_left(s.sparsity),
    label=lambda s: f"sparse-{100 * s.sparsity:.0f}",
)
