"""Candidates with fewer bits a weight: as many bits as the transfer budget allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from edgekit.bundle.results import Candidate, Rejection
from edgekit.pass_settings import LowRank, PruneChannels, QuantizeWeights
from edgekit.pipeline.search.candidate_filters import (
    STRUCTURE,
    TRANSFER,
    compute_excess,
    compute_file_budget,
    find_nearest_candidates,
    find_unshrunk,
    has_failed,
    is_done,
)
from edgekit.pipeline.search.recipe_names import (
    find_low_bit_settings,
    find_settings,
    get_storage,
    is_plain,
)
from edgekit.pipeline.search.recipes import (
    Terms,
    Tried,
    can_run,
    find_candidates,
    find_checks,
    insert_step,
    is_accurate,
    is_within,
)
from edgekit.recipe import Recipe

# Attempts at a file that came out too large, and the safety factor on its next size.
ATTEMPTS, LIGHTER = 3, 0.97


def propose_fewer_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer bits if every accurate candidate is over the transfer budget.

    The low-bit weights are tried with the int8 storage types that were accurate; if channels had to
    be removed, with the smaller graphs.
    """
    int8 = [c for c in find_unshrunk(tried, few=False) if get_storage(c.recipe) != "float"]
    fits = [c for c in int8 if is_within(c, *STRUCTURE)]
    return _propose_fitting_bits(
        tried, terms, fits or _find_fitting(tried, of=PruneChannels) or int8
    )


def propose_fewer_bits_of_smaller(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose fewer bits of accurate graphs of fewer channels or ranks over the transfer budget."""
    for kind in (PruneChannels, LowRank):
        forms = _find_fitting(tried, of=kind)
        part = min((_get_kept_part(c.recipe, kind) for c in forms), default=1.0)
        forms = [c for c in forms if _get_kept_part(c.recipe, kind) == part]
        if recipes := _propose_fitting_bits(tried, terms, forms):
            return recipes
    return ()


def propose_half_channels_and_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose half of the channels that were too many to remove, with fewer bits.

    It is tried if neither of the two alone is accurate and small enough.
    """
    if is_done(tried) or not has_failed(tried, find_low_bit_settings):
        return ()
    lost = find_candidates(
        tried,
        lambda of: _get_kept_part(of, PruneChannels) < 1 and find_low_bit_settings(of) is None,
    )
    if not lost or any(is_accurate(c) for c in lost):
        return ()
    half = (1 + max(_get_kept_part(c.recipe, PruneChannels) for c in lost)) / 2
    settings = PruneChannels(remove=round(1 - half, 2))
    forms = find_nearest_candidates(find_unshrunk(tried, few=False), (TRANSFER,))
    shrunk = [replace(c, recipe=insert_step(c.recipe, settings, terms)) for c in forms]
    return _propose_fitting_bits(tried, terms, shrunk)


def _propose_fitting_bits(
    tried: Tried, terms: Terms, forms: Sequence[Candidate]
) -> tuple[Recipe, ...]:
    """Return these recipes with as many bits as fit the transfer budget.

    If the budget is below the smallest size that they reach, that size is tried once. If it loses
    too much accuracy, a size between it and 8 bits is tried: the result may be nearest to the
    budgets, or continue with fewer channels.
    """
    limits = [line.limit for c in forms for line in find_checks(c, TRANSFER)]
    if not limits or any(is_within(c, TRANSFER) and is_plain(c.recipe) for c in forms):
        return ()
    if is_done(tried):
        return ()
    refused = _find_refused_sizes(tried, forms, terms)
    if len(refused) >= ATTEMPTS:
        return ()
    room, least = compute_file_budget(forms[0], limits[0]), max(refused.values(), default=0)
    for _ in range(ATTEMPTS):
        room = max(room, least)
        recipes = tuple(_make_low_bit_recipe(c.recipe, room, terms) for c in forms)
        known = [t for t in tried if t.recipe in recipes]
        if not known:
            return recipes
        heavy = [t for t in known if isinstance(t, Candidate) and not is_within(t, TRANSFER)]
        if room == least:  # they cannot be smaller
            lost = not any(isinstance(t, Candidate) and is_accurate(t) for t in known)
            return _propose_middle_size(least, forms, terms) if lost else ()
        if len(heavy) < len(known):
            return ()  # one fits, or a recipe was rejected
        over = min(compute_excess(t, limits[0]) for t in heavy)
        room = int(room * LIGHTER / over)
    return ()


def _propose_middle_size(
    least: int, forms: Sequence[Candidate], terms: Terms
) -> tuple[Recipe, ...]:
    """Return these recipes at the geometric mean of their smallest and their 8-bit size."""
    most = min(c.measurements[0].transfer_bytes for c in forms)
    return tuple(_make_low_bit_recipe(c.recipe, math.isqrt(least * most), terms) for c in forms)


def _find_refused_sizes(tried: Tried, forms: Sequence[Candidate], terms: Terms) -> dict[int, int]:
    """Map each refused size to the smallest transfer size that these recipes reach."""
    found: dict[int, int] = {}
    for each in tried:
        few = find_low_bit_settings(each.recipe)
        if few is None or few.most_bytes is None or not isinstance(each, Rejection):
            continue
        recipes = [_make_low_bit_recipe(c.recipe, few.most_bytes, terms) for c in forms]
        if each.least_bytes is not None and each.recipe in recipes:
            found[few.most_bytes] = each.least_bytes
    return found


def _make_low_bit_recipe(of: Recipe, room: int, terms: Terms) -> Recipe:
    few = QuantizeWeights(most_bytes=room, weight_bits=terms.weight_bits)
    return insert_step(of, few, terms)


def _find_fitting(tried: Tried, *, of: type[PruneChannels] | type[LowRank]) -> list[Candidate]:
    """Return accurate 8-bit graphs, made smaller, that hold all budgets but the transfer."""
    shrunk = find_candidates(
        tried, lambda r: find_settings(r, of) is not None and find_low_bit_settings(r) is None
    )
    return [c for c in shrunk if can_run(c) and is_accurate(c) and is_within(c, *STRUCTURE)]


def _get_kept_part(of: Recipe, kind: type[PruneChannels] | type[LowRank]) -> float:
    found = find_settings(of, kind)
    if isinstance(found, PruneChannels):
        return 1 - found.remove
    return found.keep if isinstance(found, LowRank) else 1.0
