"""Search for recipes: the next recipes to try, from the results so far."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.bundle.results import Rejection
from edgekit.compression.pass_specs import build_step
from edgekit.model import Format
from edgekit.pass_settings import Float16, QuantizeWeights, Ranges, ToOnnx
from edgekit.pipeline.search.candidate_filters import is_done
from edgekit.pipeline.search.escalation import STAGES
from edgekit.pipeline.search.fewer_bits import propose_fewer_bits_of_smaller
from edgekit.pipeline.search.recipe_names import (
    INT8,
    get_format,
    get_storage,
    is_distilled,
    is_plain,
)
from edgekit.pipeline.search.recipes import (
    Terms,
    Tried,
    append_tflite,
    find_candidates,
    is_accurate,
    is_within,
    make_dynamic,
    make_first_steps,
    make_original,
    make_recipe,
    make_static,
)
from edgekit.pipeline.search.selection import choose_candidate, find_nearest
from edgekit.recipe import Recipe

__all__ = ["Terms", "Tried", "choose_candidate", "find_nearest", "make_original", "propose"]

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

    ``propose_recovery`` proposes candidates that learn from the original, when nothing else is
    left. They may get fewer bits, which does not repeat the learning, and are no base of others.

    Args:
        tried: the original first, then the outcome of each recipe.
        terms: source, target formats and settings of the search.
    """
    others = [t for t in tried if not is_distilled(t.recipe)]
    if len(others) < len(tried) and is_done(tried):
        return ()
    known = {t.recipe.steps for t in tried}
    for stage in _STAGES:
        pool = tried if stage is propose_fewer_bits_of_smaller else others
        fresh = tuple(r for r in stage(pool, terms) if r.steps not in known)
        if fresh:
            return fresh
    return ()


def _propose_first(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Propose the original as ONNX, int8 for onnxruntime, and the original as .tflite."""
    if terms.source == "tflite" and "onnx" in terms.formats:
        bridge = make_recipe(terms, build_step(ToOnnx()))
        yield bridge
        if not find_candidates(tried, lambda of: of == bridge):
            return
    if "onnx" in terms.formats:
        yield make_static("auto", terms)
        yield make_dynamic(terms)
    if "tflite" in terms.formats and (terms.source == "onnx" or terms.remakes):
        yield _make_tflite_original(terms)


def _make_tflite_original(terms: Terms) -> Recipe:
    return append_tflite(make_recipe(terms, *make_first_steps(terms)), terms)


def _propose_tflite_versions(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    if not _can_convert_to_tflite(tried, terms):
        return
    yield append_tflite(make_static("auto", terms), terms)
    yield append_tflite(make_recipe(terms, *make_first_steps(terms)), terms, precision="dynamic")


def _can_convert_to_tflite(tried: Tried, terms: Terms) -> bool:
    """Return whether .tflite is wanted and the conversion of the original did not fail."""
    if "tflite" not in terms.formats:
        return False
    bridge = (
        _make_tflite_original(terms)
        if terms.source == "onnx"
        else make_recipe(terms, build_step(ToOnnx()))
    )
    return not any(isinstance(t, Rejection) and t.recipe == bridge for t in tried)


def _propose_other_ranges(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Propose other ranges one after the other if the best ones lose too much accuracy."""
    families = [form for form in terms.formats if _can_be_static_int8(tried, form)]
    if any(is_accurate(c) for c in find_candidates(tried, _is_static)):
        return
    known = {t.recipe.steps for t in tried}
    for ranges in _LATER_RANGES:
        later = make_static(ranges, terms)
        wave = [later if form == "onnx" else append_tflite(later, terms) for form in families]
        if not known >= {r.steps for r in wave}:
            yield from wave
            return
    if "tflite" in families:
        yield append_tflite(make_static("auto", terms), terms, precision="int16x8")


def _is_static(of: Recipe) -> bool:
    return is_plain(of) and get_storage(of) == "static"


def _can_be_static_int8(tried: Tried, form: Format) -> bool:
    """Return whether static int8 of a format exists, or failed in a way other ranges may fix."""
    # A broken result counts as inaccurate: other ranges may do better.
    own = [t for t in tried if _is_static(t.recipe) and get_format(t.recipe) == form]
    return bool(own) and not any(isinstance(t, Rejection) and not t.broken for t in own)


def _propose_8_bit_weights(tried: Tried, terms: Terms) -> Iterator[Recipe]:
    """Propose 8-bit weights and float16 if floats are too large and no int8 is accurate."""
    if any(
        is_accurate(c)
        for c in find_candidates(tried, lambda of: is_plain(of) and get_storage(of) in INT8)
    ):
        return
    floats = [c for c in find_candidates(tried, is_plain) if get_storage(c.recipe) == "float"]
    if all(is_within(c, *_SIZES) for c in floats):
        return
    if "onnx" in terms.formats:
        weights = QuantizeWeights(bits=8.0, weight_bits=terms.weight_bits)
        yield make_recipe(terms, *make_first_steps(terms), build_step(weights))
        yield make_recipe(terms, *make_first_steps(terms), build_step(Float16()))
    if _can_convert_to_tflite(tried, terms):
        yield append_tflite(
            make_recipe(terms, *make_first_steps(terms)), terms, precision="float16"
        )


_STAGES = (
    _propose_first,
    _propose_tflite_versions,
    _propose_other_ranges,
    _propose_8_bit_weights,
    *STAGES,
)
