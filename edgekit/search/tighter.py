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
_LATENCY = "latency_p95_ms"
_STRUCTURE = (_LATENCY, "peak_rss_mib", "model_mib")
_BUDGETS = (*_STRUCTURE, _TRANSFER)

# Bits that an int8 weight takes on its way, and the parts of them that may become zero.
_INT8_BITS = 6.0
_SPARSITIES = tuple(n / 20 for n in range(2, 19))

# What a name tells of the pass that made a graph smaller, and of what it was made from.
_LABELS = re.compile(r"(?:^|-)(?:int8|original|(?:pruned|low-rank|sparse)-\d+)(?=-|$)")

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
    shrunk = [c for c in made(tried, "pruned-", "low-rank-") if not _few_bits(c.recipe)]
    return [c for c in shrunk if _runs(c) and accurate(c) and holds(c, *_STRUCTURE)]


def _few_bits(of: Recipe) -> QuantizeWeights | None:
    return settings_of(of, QuantizeWeights)


def _low_bits(of: Recipe, room: int, terms: Terms) -> Recipe:
    """The recipe of a candidate after its weights have got as few bits as there is room."""
    few = QuantizeWeights(most_bytes=room, weight_bits=terms.weight_bits)
    name = f"low-bits-{room // 1024}k-{of.name.removeprefix('int8-')}"
    return replace(of, name=name, steps=smaller(of, few))


def fewer_channels(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Fewer channels where all that is accurate is too slow, too large or takes too much memory.

    As many go as the nearest forms of int8 miss the budget by; more where that is not enough and
    the accuracy holds, and not quite so many where it does not and there is room.
    """
    return _shrunk(tried, terms, _CHANNELS)


def fewer_of_few_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Fewer channels of fewer bits, where fewer bits are accurate and still too heavy to send."""
    return _shrunk(tried, terms, _CHANNELS_OF_FEW_BITS)


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
        attempts: how often it is tried.
        budgets: that it may meet.
        few_bits: whether it is for graphs whose weights have few bits.
        settings: that leave a part of what the budgets count, given the one that binds.
        left: that part, of settings.
        label: of its recipes.
    """

    kind: type[S]
    attempts: int
    budgets: tuple[str, ...]
    settings: Callable[[float, str], S]
    left: Callable[[S], float]
    label: Callable[[S], str]
    few_bits: bool = False


def _shrunk(tried: Tried, terms: Terms, way: _Way[S]) -> tuple[Recipe, ...]:
    """The next attempt of a way: from the last that it made, else from int8."""
    candidates = [t for t in tried if isinstance(t, Candidate) and _runs(t)]
    if any(accurate(c) and holds(c, *_BUDGETS) for c in candidates):
        return ()
    fitting = [t for t in tried if bool(_few_bits(t.recipe)) == way.few_bits]
    known = {t.recipe.name: way.left(s) for t in fitting if (s := settings_of(t.recipe, way.kind))}
    if len(set(known.values())) >= way.attempts:
        return ()
    last = next(reversed(known.values()), 1.0)
    pool = [c for c in candidates if known.get(c.recipe.name) == last]
    pool = pool if known else _unshrunk(candidates, few_bits=way.few_bits)
    near, part = _aim(pool, last, way.budgets)
    if not near or not _LEAST <= part < 1:
        return ()
    settings = way.settings(part, _binding(near, way.budgets))
    return tuple(_with(_lighter(c), settings, way.label(settings), terms) for c in near)


def _aim(
    pool: list[Candidate], last: float, budgets: tuple[str, ...]
) -> tuple[list[Candidate], float]:
    """The forms to make anew and the part of the model that may stay.

    Less where what is accurate takes more than there is; more where nothing is accurate and what
    was made takes less than there is.
    """
    good = [c for c in pool if accurate(c)]
    used = {c.key: _used(c, budgets) for c in good or pool}
    least = min(used.values(), default=1.0)
    near = [c for c in good or pool if used[c.key] <= _NEAR * least]
    if good and least > 1:
        return near, last * _RESERVE / least
    if not good and least < _LIGHTER**2:
        return near, last * _LIGHTER / least
    return [], 1.0


def _binding(near: list[Candidate], budgets: tuple[str, ...]) -> str:
    """The budget of which the forms take most."""
    lines = [c for each in near for c in checks(each, *budgets) if c.measured is not None]
    return max(lines, key=lambda c: (c.measured or 0.0) / c.limit).name if lines else ""


def _runs(candidate: Candidate) -> bool:
    """Whether it runs where it should."""
    return not (candidate.verdict and candidate.verdict.reasons)


def _unshrunk(candidates: list[Candidate], *, few_bits: bool) -> list[Candidate]:
    """Accurate forms of few or of 8 bits; where there is none of 8, those of the original."""
    good = [c for c in candidates if accurate(c)]
    if few_bits:
        return [c for c in good if c.recipe.name.startswith("low-bits-")]
    int8 = [c for c in good if c.recipe.name.startswith(("int8-", "int16x8"))]
    return int8 or [c for c in good if c.recipe.name.startswith("original")]


def _lighter(candidate: Candidate) -> Recipe:
    """Its recipe, with room for no more weights of few bits than travel."""
    few, used = _few_bits(candidate.recipe), _used(candidate, (_TRANSFER,))
    if few is None or few.most_bytes is None or used <= 1:
        return candidate.recipe
    room = int(few.most_bytes * _LIGHTER / used)
    name = re.sub(r"low-bits-\d+k", f"low-bits-{room // 1024}k", candidate.recipe.name)
    steps = smaller(candidate.recipe, replace(few, most_bytes=room))
    return replace(candidate.recipe, name=name, steps=steps)


def _used(candidate: Candidate, budgets: tuple[str, ...]) -> float:
    """How many times a limit it takes, where it takes most; 1 where nothing was measured."""
    known = (c.measured / c.limit for c in checks(candidate, *budgets) if c.measured is not None)
    return max(known, default=1.0)


def _with(
    of: Recipe, settings: PruneChannels | LowRank | Prune, label: str, terms: Terms
) -> Recipe:
    if not of.steps:  # the original file itself
        of = recipe(of.name, terms, start(terms))
        of = twin(of, terms) if terms.source == "tflite" else of
    form = _LABELS.sub("", of.name).removeprefix("-")
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
    settings=lambda left, _: PruneChannels(remove=round(1 - left, 2)),
    left=lambda s: 1 - s.remove,
    label=lambda s: f"pruned-{100 * s.remove:.0f}",
)
_CHANNELS_OF_FEW_BITS = replace(_CHANNELS, budgets=(_TRANSFER,), few_bits=True)
_RANKS = _Way(
    kind=LowRank,
    attempts=1,
    budgets=_BUDGETS,
    settings=lambda left, budget: LowRank(
        keep=round(left, 2), of="macs" if budget == _LATENCY else "parameters"
    ),
    left=lambda s: s.keep,
    label=lambda s: f"low-rank-{100 * s.keep:.0f}",
)
_ZEROS = _Way(
    kind=Prune,
    attempts=_ATTEMPTS,
    budgets=(_TRANSFER,),
    settings=lambda left, _: Prune(sparsity=_sparsity(left)),
    left=lambda s: _entropy_left(s.sparsity),
    label=lambda s: f"sparse-{100 * s.sparsity:.0f}",
)
