"""Which recipe next, and which candidate wins: pure decisions over what is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgekit.model import Format
from edgekit.passes import step
from edgekit.recipe import (
    Clean,
    Precision,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Ranges,
    Recipe,
    Step,
    Target,
    ToOnnx,
    ToTflite,
    WeightBits,
)
from edgekit.results import MIB, Candidate, Check, Rejected

# Two latencies closer than this are the same; then the smaller model wins.
_TIE = 1.03

# How often a file that came out too heavy is made anew, and how much lighter each time.
_ATTEMPTS, _LIGHTER = 3, 0.97
_SIZES = ("model_mib", "transfer_mib")
_TFLITE = "-tflite"
_LATER_RANGES: tuple[Ranges, ...] = ("mse", "minmax")


def original(seed: int) -> Recipe:
    """The recipe that changes nothing."""
    return Recipe(name="original", seed=seed)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What recipes start from, and what they may end in.

    Attributes:
        source: format of the source model.
        formats: of the files that candidates may be.
        weight_bits: of int8 weights where the model will run.
        seed: of whatever draws lots.
        dims: sizes of free dimensions, for files that have none.
        target: which LiteRT the device has.
        remakes: the device cannot run the source as it is.
    """

    source: Format
    formats: tuple[Format, ...]
    weight_bits: WeightBits
    seed: int
    dims: tuple[tuple[str, int], ...] = ()
    target: Target = "litert"
    remakes: bool = False


Tried = Sequence[Candidate | Rejected]


def propose(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """The recipes to try next, given what was tried; empty when enough was.

    Everything is made on the ONNX graph, and of it a twin for each runtime: static int8 with the
    best ranges for each value, dynamic int8, and the original itself in the other format; where
    that cannot be, the other twins are not tried. Only when static int8 loses too much accuracy
    are other ranges worth their time, and then, for LiteRT, activations of 16 bits; only when int8
    is too heavy for its way to the device are weights of fewer bits, as many as there is room for;
    and only where no int8 is accurate and floats are too heavy, floats of 16 bits.
    """
    names = {t.recipe.name for t in tried}
    for stage in (_first, _twins, _other_ranges, _fewer_bits, _half_floats):
        fresh = tuple(r for r in stage(tried, terms) if r.name not in names)
        if fresh:
            return fresh
    return ()


def _first(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """The original in the other format, and int8 for onnxruntime."""
    if terms.source == "tflite" and "onnx" in terms.formats:
        yield _recipe("original-onnx", terms, (step(ToOnnx()),))
        if not any(isinstance(t, Candidate) for t in tried):
            return
    if "onnx" in terms.formats:
        yield _static("auto", terms)
        yield _dynamic(terms)
    if "tflite" in terms.formats and (terms.source == "onnx" or terms.remakes):
        yield _twin(_recipe("original", terms, _start(terms)), terms)


def _twins(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    if not _crosses(tried, terms):
        return
    yield _twin(_static("auto", terms), terms)
    yield _twin(_recipe("int8-dynamic", terms, _start(terms)), terms, precision="dynamic")


def _crosses(tried: Tried, terms: Terms) -> bool:
    """Whether the model can be had as .tflite, and is wanted."""
    if "tflite" not in terms.formats:
        return False
    bridge = "original-tflite" if terms.source == "onnx" else "original-onnx"
    return not any(isinstance(t, Rejected) and t.recipe.name == bridge for t in tried)


def _other_ranges(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Other ranges one after the other, where the best ones lose too much."""
    families = [form for form in terms.formats if _quantises(tried, form)]
    if any(_accurate(c) for c in _made(tried, "int8-static")):
        return
    names = {t.recipe.name for t in tried}
    for ranges in _LATER_RANGES:
        static = _static(ranges, terms)
        wave = [static if form == "onnx" else _twin(static, terms) for form in families]
        if not names >= {r.name for r in wave}:
            yield from wave
            return
    if "tflite" in families:
        wide = _twin(_static("auto", terms), terms, precision="int16x8")
        yield replace(wide, name="int16x8-tflite")


def _quantises(tried: Tried, form: Format) -> bool:
    """Whether static int8 of a format was made, or failed in a way that other ranges may mend."""
    # Ranges that leave nothing of the outputs are as inaccurate as can be: others may do better.
    own = [t for t in tried if t.recipe.name.startswith("int8-static") and _form(t.recipe) == form]
    return bool(own) and not any(isinstance(t, Rejected) and not t.broken for t in own)


def _form(recipe: Recipe) -> Format:
    return "tflite" if recipe.name.endswith(_TFLITE) else "onnx"


def _made(tried: Tried, prefix: str) -> list[Candidate]:
    return [t for t in tried if isinstance(t, Candidate) and t.recipe.name.startswith(prefix)]


def _fewer_bits(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """Fewer bits where every accurate candidate is too heavy for its way to the device.

    The weights are made once and run in the forms that int8 was accurate in.
    """
    int8 = [c for c in _made(tried, "int8-") if _accurate(c)]
    limit = _transfer_limit(int8[0]) if int8 else None
    if limit is None or any(_travels(c) for c in int8):
        return ()
    room = int(limit * MIB)
    for _ in range(_ATTEMPTS):
        recipes = tuple(_low_bits(c.recipe, room, terms) for c in int8)
        made = [t for t in tried if t.recipe in recipes]
        if not made:
            return recipes
        heavy = [t for t in made if isinstance(t, Candidate) and not _travels(t)]
        if len(heavy) < len(made):
            return ()  # one travels, or there are no such weights
        least = min(t.measurements[0].transfer_bytes for t in heavy)
        room = int(room * _LIGHTER * limit * MIB / least)
    return ()


def _low_bits(int8: Recipe, room: int, terms: Terms) -> Recipe:
    """The recipe of an int8 candidate after its weights have got as few bits as there is room."""
    start = len(_start(terms))
    few = step(QuantizeWeights(most_bytes=room, weight_bits=terms.weight_bits))
    name = int8.name.replace("int8-", f"low-bits-{room // 1024}k-", 1)
    return replace(int8, name=name, steps=(*int8.steps[:start], few, *int8.steps[start:]))


def _half_floats(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    float_twin = _made(tried, "original-tflite")
    heavy = any(c.name in _SIZES for t in float_twin for c in _failing(t))
    if heavy and not any(_accurate(c) for c in _made(tried, "int8-")):
        yield _twin(_recipe("float16", terms, _start(terms)), terms, precision="float16")


def _failing(candidate: Candidate) -> tuple[Check, ...]:
    return candidate.verdict.failing if candidate.verdict else ()


def _recipe(name: str, terms: Terms, steps: tuple[Step, ...]) -> Recipe:
    return Recipe(name=name, steps=steps, seed=terms.seed)


def _start(terms: Terms) -> tuple[Step, ...]:
    """What every recipe begins with: an ONNX graph without what has no effect."""
    return (*([step(ToOnnx())] if terms.source == "tflite" else []), step(Clean()))


def _static(ranges: Ranges, terms: Terms) -> Recipe:
    quantize = step(QuantizeStatic(ranges=ranges, weight_bits=terms.weight_bits))
    name = "int8-static" if ranges == "auto" else f"int8-static-{ranges}"
    return _recipe(name, terms, (*_start(terms), quantize))


def _dynamic(terms: Terms) -> Recipe:
    quantize = step(QuantizeDynamic(weight_bits=terms.weight_bits))
    return _recipe("int8-dynamic", terms, (*_start(terms), quantize))


def _twin(recipe: Recipe, terms: Terms, *, precision: Precision = "same") -> Recipe:
    """The same for LiteRT."""
    lite = step(ToTflite(precision=precision, target=terms.target, dims=terms.dims))
    return replace(recipe, name=recipe.name + _TFLITE, steps=(*recipe.steps, lite))


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
