"""Which recipe next, and which candidate wins: pure decisions over what is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgekit.model import Format
from edgekit.passes import step
from edgekit.recipe import Ranges, Recipe, ToOnnx
from edgekit.results import Rejected
from edgekit.search.choosing import choose, nearest
from edgekit.search.terms import (
    TFLITE,
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
from edgekit.search.tighter import fewer_bits, fewer_channels, fewer_of_few_bits, lower_ranks, zeros

__all__ = ["Terms", "Tried", "choose", "nearest", "original", "propose"]

_SIZES = ("model_mib", "transfer_mib")
_LATER_RANGES: tuple[Ranges, ...] = ("mse", "minmax")


def propose(tried: Tried, terms: Terms) -> tuple[Recipe, ...]:
    """The recipes to try next, given what was tried; empty when enough was.

    Everything is made on the ONNX graph, and of it a twin for each runtime: static int8 with the
    best ranges for each value, dynamic int8, and the original itself in the other format; where
    that cannot be, the other twins are not tried. Only when static int8 loses too much accuracy
    are other ranges worth their time, and then, for LiteRT, activations of 16 bits; only where no
    int8 is accurate and floats are too heavy, floats of 16 bits.

    Where all that is accurate misses a budget, the graph itself gets smaller: fewer channels where
    it is too slow or takes too much room there, as many as the budget asks for; weights of fewer
    bits, as many as there is room for, where only its way to the device is too narrow, and of
    fewer channels where that is not enough; products of low rank where nothing else was; and
    zeros where fewer bits lose too much.
    """
    names = {t.recipe.name for t in tried}
    for stage in _STAGES:
        fresh = tuple(r for r in stage(tried, terms) if r.name not in names)
        if fresh:
            return fresh
    return ()


def _first(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """The original in the other format, and int8 for onnxruntime."""
    if terms.source == "tflite" and "onnx" in terms.formats:
        yield recipe("original-onnx", terms, (step(ToOnnx()),))
        if not made(tried, "original-onnx"):
            return
    if "onnx" in terms.formats:
        yield static("auto", terms)
        yield dynamic(terms)
    if "tflite" in terms.formats and (terms.source == "onnx" or terms.remakes):
        yield twin(recipe("original", terms, start(terms)), terms)


def _twins(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    if not _crosses(tried, terms):
        return
    yield twin(static("auto", terms), terms)
    yield twin(recipe("int8-dynamic", terms, start(terms)), terms, precision="dynamic")


def _crosses(tried: Tried, terms: Terms) -> bool:
    """Whether the model can be had as .tflite, and is wanted."""
    if "tflite" not in terms.formats:
        return False
    bridge = "original-tflite" if terms.source == "onnx" else "original-onnx"
    return not any(isinstance(t, Rejected) and t.recipe.name == bridge for t in tried)


def _other_ranges(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Other ranges one after the other, where the best ones lose too much."""
    families = [form for form in terms.formats if _quantises(tried, form)]
    if any(accurate(c) for c in made(tried, "int8-static")):
        return
    names = {t.recipe.name for t in tried}
    for ranges in _LATER_RANGES:
        later = static(ranges, terms)
        wave = [later if form == "onnx" else twin(later, terms) for form in families]
        if not names >= {r.name for r in wave}:
            yield from wave
            return
    if "tflite" in families:
        wide = twin(static("auto", terms), terms, precision="int16x8")
        yield replace(wide, name=f"int16x8{TFLITE}")


def _quantises(tried: Tried, form: Format) -> bool:
    """Whether static int8 of a format was made, or failed in a way that other ranges may mend."""
    # Ranges that leave nothing of the outputs are as inaccurate as can be: others may do better.
    own = [t for t in tried if t.recipe.name.startswith("int8-static") and _form(t.recipe) == form]
    return bool(own) and not any(isinstance(t, Rejected) and not t.broken for t in own)


def _form(of: Recipe) -> Format:
    return "tflite" if of.name.endswith(TFLITE) else "onnx"


def _half_floats(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    heavy = any(not holds(c, *_SIZES) for c in made(tried, f"original{TFLITE}"))
    if heavy and not any(accurate(c) for c in made(tried, "int8-")):
        yield twin(recipe("float16", terms, start(terms)), terms, precision="float16")


_STAGES = (
    _first,
    _twins,
    _other_ranges,
    _half_floats,
    fewer_channels,
    fewer_bits,
    fewer_of_few_bits,
    lower_ranks,
    zeros,
)
