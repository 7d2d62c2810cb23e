"""Recovery of accuracy: small candidates that lost too much of it learn from the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgekit.bundle.results import Candidate, Check
from edgekit.compression.pass_specs import build_step
from edgekit.pass_settings import (
    Distil,
    LowRank,
    PruneChannels,
    PruneWeights,
    QuantizeWeights,
    ToTflite,
)
from edgekit.pipeline.search.candidate_filters import (
    BUDGETS,
    STRUCTURE,
    TRANSFER,
    compute_usage,
    is_done,
)
from edgekit.pipeline.search.fewer_bits import LIGHTER
from edgekit.pipeline.search.recipe_names import (
    find_low_bit_settings,
    get_storage,
    is_distilled,
    is_shrunk,
)
from edgekit.pipeline.search.recipes import (
    Terms,
    Tried,
    can_run,
    find_candidates,
    is_accurate,
    is_within,
    make_recipe,
)
from edgekit.recipe import Recipe, Step

# Largest loss that learning may recover: in points, and relative to the allowed loss.
_POINTS = 15.0
_TIMES, _MORE = 3.0, 10.0
# The same for metrics that are neither points nor percent.
_TIMES_OF_OTHERS = 10.0
# Largest factor by which fewer bits make the download of 8-bit weights smaller.
_FEWER_BITS = 4.0
# A shorter attempt is not worth it.
_LEAST_MINUTES = 0.1
# Bytes that the step itself takes in the manifest.
_OWN_BYTES = 64
_SHRINKING = (PruneChannels, LowRank, PruneWeights)

Steps = tuple[Step, ...]


def propose_recovery(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Propose that a candidate learns what it lost of its accuracy.

    Candidates within the budgets come first, those with the smallest loss before others. Then come
    smaller graphs that exceed only the transfer budget: fewer bits may follow. A smaller graph
    learns in floats, before its weights are stored in 8 bits; few bits and 8-bit activations learn
    as they are. Versions of one model in several formats learn once; of static and dynamic int8
    with the same few bits, the nearer one learns. Each attempt takes half of the remaining minutes,
    the last one all of them.

    Args:
        tried: all results, with verdicts on everything that was measured.
        terms: of the search.
    """
    if is_done(tried):
        return ()
    spent = {_split(t.recipe): _get_minutes(t.recipe) for t in tried if is_distilled(t.recipe)}
    known = {_drop_storage(model) for model in spent}
    waiting = {
        model: group
        for model, group in _group_by_model(tried).items()
        if _drop_storage(model) not in known
    }
    attempts = min(terms.attempts - len(spent), len(waiting))
    if attempts < 1:
        return ()
    model, candidates = next(iter(waiting.items()))
    left = terms.minutes - sum(spent.values())
    is_last = attempts == 1 and is_within(candidates[0], *BUDGETS)
    minutes = round(left if is_last else left / 2, 2)
    if minutes < _LEAST_MINUTES:
        return ()
    step = build_step(Distil(minutes=minutes))
    lighter = tuple(map(_make_lighter, model))
    rests = (c.recipe.steps[len(model) :] for c in candidates)
    return tuple(make_recipe(terms, *lighter, step, *rest) for rest in rests)


def _make_lighter(step: Step) -> Step:
    """Return a step with a lower size of few-bit weights, as they may grow a little by learning."""
    settings = step.settings
    if not isinstance(settings, QuantizeWeights) or settings.most_bytes is None:
        return step
    return build_step(replace(settings, most_bytes=int(LIGHTER * settings.most_bytes) - _OWN_BYTES))


def _group_by_model(tried: Tried) -> dict[Steps, list[Candidate]]:
    """Group the candidates that may recover by the steps that make the model that learns."""
    found: dict[Steps, list[Candidate]] = {}
    for candidate in _iter_recoverable(tried):
        found.setdefault(_find_learning_model(candidate.recipe), []).append(candidate)
    return found


def _iter_recoverable(tried: Tried) -> Iterator[Candidate]:
    """Yield inaccurate candidates whose loss is within reach, the most promising first."""
    lost = [
        c
        for c in find_candidates(tried, _can_learn)
        if can_run(c) and not is_accurate(c) and _compute_loss(c) <= 1
    ]
    lost.sort(key=_compute_loss)
    yield from (c for c in lost if is_within(c, *BUDGETS))
    yield from (c for c in lost if _may_fit_with_fewer_bits(c))


def _may_fit_with_fewer_bits(candidate: Candidate) -> bool:
    """Return whether a smaller graph of 8-bit weights exceeds only the transfer budget."""
    is_smaller = is_shrunk(candidate.recipe) and find_low_bit_settings(candidate.recipe) is None
    exceeds = is_within(candidate, *STRUCTURE) and not is_within(candidate, TRANSFER)
    return is_smaller and exceeds and compute_usage(candidate, (TRANSFER,)) <= _FEWER_BITS


def _can_learn(of: Recipe) -> bool:
    """Return whether a recipe changes weights in a way that gradients can correct.

    A model learns a second time only if its weights were stored in few bits after the first time.
    """
    if is_distilled(of):
        kinds = [type(step.settings) for step in of.steps]
        return QuantizeWeights in kinds[_find_last(kinds, Distil) :]
    return is_shrunk(of) or get_storage(of) in ("static", "weights")


def _compute_loss(candidate: Candidate) -> float:
    """Return the largest loss by a metric, relative to the loss that learning may recover."""
    checks = candidate.verdict.checks if candidate.verdict else ()
    lost = [c for c in checks if c.metric and c.outcome == "fails"]
    return max(((c.measured or 0.0) / max(_get_reach(c), 1e-9) for c in lost), default=0.0)


def _get_reach(check: Check) -> float:
    """Return the largest loss that learning may recover, in the unit of a check."""
    if check.name.endswith("_points"):
        return max(_POINTS, _TIMES * check.limit + _MORE)
    if check.name.endswith("_percent"):
        return _TIMES * check.limit + _MORE
    return _TIMES_OF_OTHERS * check.limit


def _find_learning_model(of: Recipe) -> Steps:
    """Return the steps that make the model that learns."""
    kinds = [type(step.settings) for step in of.steps]
    if is_shrunk(of) and find_low_bit_settings(of) is None:
        return of.steps[: _find_last(kinds, *_SHRINKING) + 1]
    return of.steps[: kinds.index(ToTflite)] if ToTflite in kinds else of.steps


def _split(of: Recipe) -> Steps:
    """Return the steps that made the model that learned last."""
    return of.steps[: _find_last([type(step.settings) for step in of.steps], Distil)]


def _drop_storage(steps: Steps) -> Steps:
    """Return the steps up to the one that made the graph or its weights smaller, of any size."""
    kinds = [type(step.settings) for step in steps]
    smaller = [i for i, kind in enumerate(kinds) if kind in (*_SHRINKING, QuantizeWeights)]
    kept = steps[: max(smaller) + 1] if smaller else steps
    return tuple(
        replace(step, settings=replace(step.settings, most_bytes=None))
        if isinstance(step.settings, QuantizeWeights)
        else step
        for step in kept
    )


def _get_minutes(of: Recipe) -> float:
    settings = of.steps[len(_split(of))].settings
    return settings.minutes if isinstance(settings, Distil) else 0.0


def _find_last(kinds: list[type], *wanted: type) -> int:
    return max(i for i, kind in enumerate(kinds) if kind in wanted)
