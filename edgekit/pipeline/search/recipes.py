"""Terms of a search, tried recipes and their checks, and the construction of recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.bundle.results import Candidate, Check, Rejection
from edgekit.compression.pass_specs import build_step
from edgekit.model import Format
from edgekit.pass_settings import (
    Clean,
    Float16,
    IntegerBits,
    Precision,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Ranges,
    Settings,
    Target,
    ToOnnx,
    ToTflite,
)
from edgekit.pipeline.search.recipe_names import format_name
from edgekit.recipe import Recipe, Step

# Passes that make a graph smaller come before these, which determine its storage.
_STORING = (QuantizeWeights, QuantizeStatic, QuantizeDynamic, Float16, ToTflite)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Source, target formats and settings of a search.

    Attributes:
        source: format of the source model.
        formats: allowed formats of the candidates.
        weight_bits: bits of int8 weights on the device.
        seed: seed of every random choice.
        dims: sizes of free dimensions, for formats that have none.
        target: LiteRT version of the device.
        remakes: whether the device cannot run the source as it is.
        minutes: expected time of all learning together; 0 = none.
        attempts: largest number of models that learn.
    """

    source: Format
    formats: tuple[Format, ...]
    weight_bits: IntegerBits
    seed: int
    dims: tuple[tuple[str, int], ...] = ()
    target: Target = "litert"
    remakes: bool = False
    minutes: float = 0.0
    attempts: int = 3


# The original first, then the outcome of each recipe, with verdicts on the measurements so far.
Tried = Sequence[Candidate | Rejection]


def make_original(seed: int) -> Recipe:
    """Return the recipe without steps."""
    return Recipe(name=format_name(()), seed=seed)


def make_recipe(terms: Terms, *steps: Step) -> Recipe:
    """Build a recipe of the given steps, named after them."""
    return Recipe(name=format_name(steps), steps=steps, seed=terms.seed)


def make_first_steps(terms: Terms) -> tuple[Step, ...]:
    """Return the first steps of every recipe: conversion to ONNX if needed, and cleaning."""
    return (*([build_step(ToOnnx())] if terms.source == "tflite" else []), build_step(Clean()))


def make_static(ranges: Ranges, terms: Terms) -> Recipe:
    """Build a recipe of static int8 for onnxruntime."""
    return make_recipe(
        terms,
        *make_first_steps(terms),
        build_step(QuantizeStatic(ranges=ranges, weight_bits=terms.weight_bits)),
    )


def make_dynamic(terms: Terms) -> Recipe:
    """Build a recipe of dynamic int8 for onnxruntime."""
    return make_recipe(
        terms, *make_first_steps(terms), build_step(QuantizeDynamic(weight_bits=terms.weight_bits))
    )


def append_tflite(of: Recipe, terms: Terms, *, precision: Precision = "same") -> Recipe:
    """Append the conversion to .tflite to a recipe.

    Args:
        of: the recipe to start from.
        terms: of the search.
        precision: storage in the .tflite file; ``same`` keeps that of the recipe.
    """
    lite = build_step(ToTflite(precision=precision, target=terms.target, dims=terms.dims))
    return make_recipe(terms, *of.steps, lite)


def insert_step(of: Recipe, settings: Settings, terms: Terms) -> Recipe:
    """Insert a step before the steps that store the graph; it replaces a step of the same pass.

    If the recipe does not quantize, low-bit weights are stored without a further step.

    Args:
        of: the recipe to start from.
        settings: of the new step.
        terms: of the search.
    """
    steps = of.steps
    if not steps:  # the original file itself
        lite = build_step(ToTflite(target=terms.target, dims=terms.dims))
        steps = (*make_first_steps(terms), *([lite] if terms.source == "tflite" else []))
    others = tuple(s for s in steps if type(s.settings) is not type(settings))
    at = next((i for i, s in enumerate(others) if isinstance(s.settings, _STORING)), len(others))
    return make_recipe(terms, *others[:at], build_step(settings), *others[at:])


def find_candidates(tried: Tried, which: Callable[[Recipe], bool]) -> list[Candidate]:
    """Return the candidates whose recipes meet a condition."""
    return [t for t in tried if isinstance(t, Candidate) and which(t.recipe)]


def find_checks(candidate: Candidate, *names: str) -> tuple[Check, ...]:
    """Return the gate's checks of the named budgets."""
    lines = candidate.verdict.checks if candidate.verdict else ()
    return tuple(line for line in lines if line.name in names)


def is_within(candidate: Candidate, *names: str) -> bool:
    """Return whether none of the named budgets fails, as far as they were measured."""
    return all(line.outcome != "fails" for line in find_checks(candidate, *names))


def is_accurate(candidate: Candidate) -> bool:
    """Return whether no check shows that the candidate loses too much accuracy."""
    checks = candidate.verdict.checks if candidate.verdict else ()
    return all(c.outcome not in ("fails", "meaningless") for c in checks if c.metric)


def can_run(candidate: Candidate) -> bool:
    """Return whether the candidate runs where it should."""
    return not (candidate.verdict and candidate.verdict.reasons)
