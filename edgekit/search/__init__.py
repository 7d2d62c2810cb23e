"""Search for recipes: the next recipes to try, from the results so far."""

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
    """Propose the recipes to try next; empty when the search is done.

    All candidates come from the ONNX graph, with a version for each runtime: static int8 with the
    best ranges for each value, dynamic int8, and the original in the other format. If that
    conversion fails, the other versions of that format are not tried. Other ranges, and then 16-bit
    activations for LiteRT, are tried only if static int8 loses too much accuracy; 8-bit weights
    with float activations and float16 only if no int8 is accurate and floats are too large.

    If all accurate candidates miss a budget, the graph itself is made smaller, the most promising
    way first. If it is too slow, too large or takes too much memory: fewer channels, as many as the
    budget requires. If only the transfer is too large: fewer bits, as many as fit, then fewer
    channels of these; fewer channels of 8 bits, then fewer bits of these; sparsity; low rank, then
    fewer bits of these. Each way has a few attempts at most.

    Args:
        tried: the original first, then the outcome of each recipe.
        terms: source, target formats and settings of the search.
    """
    known = {t.recipe.steps for t in tried}
    for stage in _STAGES:
        fresh = tuple(r for r in stage(tried, terms) if r.steps not in known)
        if fresh:
            return fresh
    return ()


def _first(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Propose the original as ONNX, int8 for onnxruntime, and the original as .tflite."""
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
    """Return whether .tflite is wanted and the conversion of the original did not fail."""
    if "tflite" not in terms.formats:
        return False
    bridge = _lite_original(terms) if terms.source == "onnx" else recipe(terms, step(ToOnnx()))
    return not any(isinstance(t, Rejected) and t.recipe == bridge for t in tried)


def _other_ranges(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Propose other ranges one after the other if the best ones lose too much accuracy."""
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
    """Return whether static int8 of a format exists, or failed in a way other ranges may fix."""
    # A broken result counts as inaccurate: other ranges may do better.
    own = [t for t in tried if _is_static(t.recipe) and format_of(t.recipe) == form]
    return bool(own) and not any(isinstance(t, Rejected) and not t.broken for t in own)


def _without_int8(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Propose 8-bit weights and float16 if floats are too large and no int8 is accurate."""
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
