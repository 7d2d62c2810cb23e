"""Which recipe next, and which candidate wins: pure decisions over what is known."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.model import Format
from edgekit.passes import step
from edgekit.recipe import Float16, QuantizeWeights, Ranges, Recipe, ToOnnx
from edgekit.results import Rejected
from edgekit.search.choosing import choose, nearest
from edgekit.search.forms import INT8, format_of, is_plain, storage
from edgekit.search.terms import (
    Terms,
    Tried,
    accurate,
    dynamic,
    holds,
    made,
    original,
    recipe,
    start,
    static,
    twin,
)
from edgekit.search.tighter import STAGES

__all__ = ["Terms", "Tried", "choose", "nearest", "original", "propose"]

_SIZES = ("model_mib", "transfer_mib")
_LATER_RANGES: tuple[Ranges, ...] = ("mse", "minmax")


def propose(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """The recipes to try next, given what was tried; empty when enough was.

    Everything is made on the ONNX graph, and of it a twin for each runtime: static int8 with the
    best ranges for each value, dynamic int8, and the original itself in the other format; where
    that cannot be, the other twins are not tried. Only when static int8 loses too much accuracy
    are other ranges worth their time, and then, for LiteRT, activations of 16 bits; only where no
    int8 is accurate and floats are too heavy, weights of 8 bits and floats of 16 bits.

    Where all that is accurate misses a budget, the graph itself gets smaller, the likeliest way
    first: fewer channels where it is too slow or takes too much room there, as many as the budget
    asks for. Where only the bytes to send are too many: fewer bits, as many as there is room for,
    and fewer channels of these; fewer channels of 8 bits, and fewer bits of these; zeros; products
    of low rank, and fewer bits of these. Each is tried a few times at most.
    """
    known = {t.recipe.steps for t in tried}
    for stage in _STAGES:
        fresh = tuple(r for r in stage(tried, terms) if r.steps not in known)
        if fresh:
            return fresh
    return ()


def _first(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """The original in the other format, and int8 for onnxruntime."""
    if terms.source == "tflite" and "onnx" in terms.formats:
        bridge = recipe(terms, step(ToOnnx()))
        yield bridge
        if not made(tried, lambda of: of == bridge):
            return
    if "onnx" in terms.formats:
        yield static("auto", terms)
        yield dynamic(terms)
    if "tflite" in terms.formats and (terms.source == "onnx" or terms.remakes):
        yield _lite_original(terms)


def _lite_original(terms: Terms) -> Recipe:
    return twin(recipe(terms, *start(terms)), terms)


def _twins(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    if not _crosses(tried, terms):
        return
    yield twin(static("auto", terms), terms)
    yield twin(recipe(terms, *start(terms)), terms, precision="dynamic")


def _crosses(tried: Tried, terms: Terms) -> bool:
    """Whether the model can be had as .tflite, and is wanted."""
    if "tflite" not in terms.formats:
        return False
    bridge = _lite_original(terms) if terms.source == "onnx" else recipe(terms, step(ToOnnx()))
    return not any(isinstance(t, Rejected) and t.recipe == bridge for t in tried)


def _other_ranges(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Other ranges one after the other, where the best ones lose too much."""
    families = [form for form in terms.formats if _quantises(tried, form)]
    if any(accurate(c) for c in made(tried, _is_static)):
        return
    known = {t.recipe.steps for t in tried}
    for ranges in _LATER_RANGES:
        later = static(ranges, terms)
        wave = [later if form == "onnx" else twin(later, terms) for form in families]
        if not known >= {r.steps for r in wave}:
            yield from wave
            return
    if "tflite" in families:
        yield twin(static("auto", terms), terms, precision="int16x8")


def _is_static(of: Recipe) -> bool:
    return is_plain(of) and storage(of) == "static"


def _quantises(tried: Tried, form: Format) -> bool:
    """Whether static int8 of a format was made, or failed in a way that other ranges may mend."""
    # Ranges that leave nothing of the outputs are as inaccurate as can be: others may do better.
    own = [t for t in tried if _is_static(t.recipe) and format_of(t.recipe) == form]
    return bool(own) and not any(isinstance(t, Rejected) and not t.broken for t in own)


def _without_int8(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Smaller weights with float activations, where floats are too heavy and no int8 is right."""
    if any(accurate(c) for c in made(tried, lambda of: is_plain(of) and storage(of) in INT8)):
        return
    floats = [c for c in made(tried, is_plain) if storage(c.recipe) == "float"]
    if all(holds(c, *_SIZES) for c in floats):
        return
    if "onnx" in terms.formats:
        weights = QuantizeWeights(bits=8.0, weight_bits=terms.weight_bits)
        yield recipe(terms, *start(terms), step(weights))
        yield recipe(terms, *start(terms), step(Float16()))
    if _crosses(tried, terms):
        yield twin(recipe(terms, *start(terms)), terms, precision="float16")


_STAGES = (_first, _twins, _other_ranges, _without_int8, *STAGES)
