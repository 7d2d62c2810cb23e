"""Which recipe next, and which candidate wins: pure decisions over what is known."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.model import Format
from edgekit.passes import step
from edgekit.recipe import (
    Clean,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Ranges,
    Recipe,
    WeightBits,
)
from edgekit.results import MIB, Candidate, Check, Rejected

# Two latencies closer than this are the same; then the smaller model wins.
_TIE = 1.03

# How often a file that came out too heavy is made anew, and how much lighter each time.
_ATTEMPTS, _LIGHTER = 3, 0.97
_LATER_RANGES: tuple[Ranges, ...] = ("mse", "minmax")


def original(seed: int) -> Recipe:
    """The recipe that changes nothing."""
    return Recipe(name="original", seed=seed)


def propose(
    tried: Sequence[Candidate | Rejected],
    *,
    model_format: Format,
    weight_bits: WeightBits,
    seed: int,
) -> tuple[Recipe, ...]:
    """The recipes to try next, given what was tried; empty when enough was.

    Static int8 with the best ranges for each value and dynamic int8 come first. Only when the
    static one loses too much accuracy are other range estimators worth their time; only when int8
    is too heavy for its way to the device are weights of fewer bits, as many as there is room for.

    Args:
        tried: what became of the recipes so far.
        model_format: of the source model.
        weight_bits: of int8 weights where the model will run.
        seed: of whatever draws lots.
    """
    if model_format != "onnx":
        return ()  # every pass works on the ONNX graph
    names = {t.recipe.name for t in tried}
    first = (_static("auto", weight_bits, seed), _dynamic(weight_bits, seed))
    if not names & {r.name for r in first}:
        return first
    static = [t for t in tried if t.recipe.name.startswith("int8-static")]
    # Ranges that leave nothing of the outputs are as inaccurate as can be: others may do better.
    if not static or any(isinstance(t, Rejected) and not t.broken for t in static):
        return ()
    if any(isinstance(t, Candidate) and _accurate(t) for t in static):
        int8 = [t for t in tried if t.recipe.name.startswith("int8-")]
        return _lighter([t for t in int8 if isinstance(t, Candidate) and _accurate(t)], tried)
    later = (_static(ranges, weight_bits, seed) for ranges in _LATER_RANGES)
    return next(((r,) for r in later if r.name not in names), ())


def _lighter(
    int8: Sequence[Candidate], tried: Sequence[Candidate | Rejected]
) -> tuple[Recipe, ...]:
    """Fewer bits where every accurate candidate is too heavy for its way to the device.

    The weights are made once and run in the forms that int8 was accurate in.
    """
    limit = _transfer_limit(int8[0])
    if limit is None or any(_travels(c) for c in int8):
        return ()
    room = int(limit * MIB)
    for _ in range(_ATTEMPTS):
        recipes = tuple(_low_bits(c.recipe, room) for c in int8)
        made = [t for t in tried if t.recipe in recipes]
        if not made:
            return recipes
        heavy = [t for t in made if isinstance(t, Candidate) and not _travels(t)]
        if len(heavy) < len(made):
            return ()  # one travels, or there are no such weights
        least = min(t.measurements[0].transfer_bytes for t in heavy)
        room = int(room * _LIGHTER * limit * MIB / least)
    return ()


def _low_bits(int8: Recipe, room: int) -> Recipe:
    """The recipe of an int8 candidate after its weights have got as few bits as there is room."""
    clean, *later = int8.steps
    bits: WeightBits = next(
        s.settings.weight_bits
        for s in later
        if isinstance(s.settings, QuantizeStatic | QuantizeDynamic)
    )
    few = step(QuantizeWeights(most_bytes=room, weight_bits=bits))
    name = int8.name.replace("int8-", f"low-bits-{room // 1024}k-", 1)
    return Recipe(name=name, steps=(clean, few, *later), seed=int8.seed)


def _static(ranges: Ranges, weight_bits: WeightBits, seed: int) -> Recipe:
    steps = (step(Clean()), step(QuantizeStatic(ranges=ranges, weight_bits=weight_bits)))
    name = "int8-static" if ranges == "auto" else f"int8-static-{ranges}"
    return Recipe(name=name, steps=steps, seed=seed)


def _dynamic(weight_bits: WeightBits, seed: int) -> Recipe:
    steps = (step(Clean()), step(QuantizeDynamic(weight_bits=weight_bits)))
    return Recipe(name="int8-dynamic", steps=steps, seed=seed)


def _transfer(candidate: Candidate) -> Check | None:
    checks = candidate.verdict.checks if candidate.verdict else ()
    return next((c for c in checks if c.name == "transfer_mib"), None)


def _transfer_limit(candidate: Candidate) -> float | None:
    check = _transfer(candidate)
    return check.limit if check else None


def _travels(candidate: Candidate) -> bool:
    check = _transfer(candidate)
    return check is None or check.outcome != "fails"


def _accurate(candidate: Candidate) -> bool:
    checks = candidate.verdict.checks if candidate.verdict else ()
    return all(c.outcome != "fails" for c in checks if c.name == "accuracy_drop_points")


def choose(candidates: Sequence[Candidate], *, source: str) -> Candidate | None:
    """The fastest candidate that passes; of equally fast ones the one that travels lightest.

    Args:
        candidates: all, the original among them, with verdicts.
        source: whose latencies count (``host`` or ``device:NAME``).
    """
    passing = [c for c in candidates if c.verdict and c.verdict.passes]
    if not passing:
        return None
    fastest = min(_speed(c, source) for c in passing)
    contenders = [c for c in passing if _speed(c, source) <= _TIE * fastest]
    return min(contenders, key=lambda c: (_transfer_bytes(c, source), c.recipe.name))


def nearest(candidates: Sequence[Candidate], *, source: str) -> Candidate:
    """The candidate that misses least: one that runs, with the fewest failing lines, by least."""
    return min(candidates, key=lambda c: (*_misses(c), _speed(c, source)))


def _misses(candidate: Candidate) -> tuple[int, int, float]:
    if candidate.verdict is None:
        return 0, 0, 0.0
    failing = candidate.verdict.failing
    excess = sum((c.measured or 0) / max(c.limit, 1e-9) for c in failing)
    return len(candidate.verdict.reasons), len(failing), excess


def _speed(candidate: Candidate, source: str) -> float:
    measurement = candidate.measured(source)
    times = measurement.times if measurement else None
    return times.quiet_p50_ms if times else float("inf")


def _transfer_bytes(candidate: Candidate, source: str) -> int:
    measurement = candidate.measured(source)
    return measurement.transfer_bytes if measurement else candidate.model.bytes
