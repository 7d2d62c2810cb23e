"""Filters of the candidates tried so far, by accuracy, storage and usage of the budgets."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.bundle.results import MIB, Candidate, Rejection
from edgekit.pipeline.search.recipe_names import INT8, find_low_bit_settings, get_storage, is_shrunk
from edgekit.pipeline.search.recipes import (
    Tried,
    can_run,
    find_candidates,
    find_checks,
    is_accurate,
    is_within,
)
from edgekit.recipe import Recipe

TRANSFER = "transfer_mib"
LATENCY = "latency_p95_ms"
STRUCTURE = (LATENCY, "peak_rss_mib", "model_mib")
BUDGETS = (*STRUCTURE, TRANSFER)

# Candidates with a usage up to this factor above the smallest one are made smaller with it.
_NEAR = 1.1


def has_failed(tried: Tried, which: Callable[[Recipe], object]) -> bool:
    """Return whether recipes of a kind were tried and none is accurate; size refusals count."""
    own = [t for t in tried if which(t.recipe)]
    good = [t for t in own if isinstance(t, Candidate) and is_accurate(t)]
    refused = any(isinstance(t, Rejection) and t.least_bytes is not None for t in own)
    return bool(own) and not any(is_within(t, TRANSFER) or not refused for t in good)


def is_done(tried: Tried) -> bool:
    """Return whether one candidate is accurate and meets every measured budget."""
    return any(
        can_run(t) and is_accurate(t) and is_within(t, *BUDGETS)
        for t in tried
        if isinstance(t, Candidate)
    )


def find_nearest_candidates(pool: list[Candidate], budgets: tuple[str, ...]) -> list[Candidate]:
    """Return the candidates whose usage is little above the smallest one."""
    used = {c.key: compute_usage(c, budgets) for c in pool}
    least = min(used.values(), default=1.0)
    return [c for c in pool if used[c.key] <= _NEAR * least]


def find_binding_budget(near: list[Candidate], budgets: tuple[str, ...]) -> str:
    """Return the name of the budget with the highest usage; empty if none was measured."""
    lines = [c for each in near for c in find_checks(each, *budgets) if c.measured is not None]
    return max(lines, key=lambda c: (c.measured or 0.0) / c.limit).name if lines else ""


def find_unshrunk(tried: Tried, *, few: bool) -> list[Candidate]:
    """Return accurate unpruned candidates of few or 8 bits; float ones if none has 8 bits."""
    good = [
        c
        for c in find_candidates(tried, lambda of: not is_shrunk(of))
        if can_run(c) and is_accurate(c)
    ]
    if few:
        return [c for c in good if find_low_bit_settings(c.recipe)]
    plain = [c for c in good if not find_low_bit_settings(c.recipe)]
    int8 = [c for c in plain if get_storage(c.recipe) in (*INT8, "int16x8", "weights")]
    return int8 or [c for c in plain if get_storage(c.recipe) == "float"]


def compute_usage(candidate: Candidate, budgets: tuple[str, ...]) -> float:
    """Return the highest usage of a budget relative to its limit; 1 if nothing was measured."""
    known = (
        c.measured / c.limit for c in find_checks(candidate, *budgets) if c.measured is not None
    )
    return max(known, default=1.0)


def compute_file_budget(candidate: Candidate, limit_mib: float) -> int:
    """Return the bytes left for the model file within the transfer limit."""
    return max(int(limit_mib * MIB) - candidate.measurements[0].overhead_bytes, 1)


def compute_excess(candidate: Candidate, limit_mib: float) -> float:
    """Return the size of a candidate's file relative to the bytes left for it."""
    return candidate.measurements[0].transfer_bytes / compute_file_budget(candidate, limit_mib)
