"""What a search starts from and has tried, and the recipes that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from edgekit.model import Format
from edgekit.passes import step
from edgekit.recipe import (
    Clean,
    IntegerBits,
    Precision,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Ranges,
    Recipe,
    Settings,
    Step,
    Target,
    ToOnnx,
    ToTflite,
)
from edgekit.results import Candidate, Check, Rejected

S = TypeVar("S")

TFLITE = "-tflite"
# Passes that make a graph smaller come before these, which store it.
_STORING = (QuantizeWeights, QuantizeStatic, QuantizeDynamic, ToTflite)


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
    weight_bits: IntegerBits
    seed: int
    dims: tuple[tuple[str, int], ...] = ()
    target: Target = "litert"
    remakes: bool = False


# The original first, then what became of each recipe, with verdicts on what is known so far.
Tried = Sequence[Candidate | Rejected]


def original(seed: int) -> Recipe:
    """The recipe that changes nothing."""
    return Recipe(name="original", seed=seed)


def recipe(name: str, terms: Terms, steps: tuple[Step, ...]) -> Recipe:
    """A recipe of these steps."""
    return Recipe(name=name, steps=steps, seed=terms.seed)


def start(terms: Terms) -> tuple[Step, ...]:
    """What every recipe begins with: an ONNX graph without what has no effect."""
    return (*([step(ToOnnx())] if terms.source == "tflite" else []), step(Clean()))


def static(ranges: Ranges, terms: Terms) -> Recipe:
    """Static int8 for onnxruntime."""
    quantize = step(QuantizeStatic(ranges=ranges, weight_bits=terms.weight_bits))
    name = "int8-static" if ranges == "auto" else f"int8-static-{ranges}"
    return recipe(name, terms, (*start(terms), quantize))


def dynamic(terms: Terms) -> Recipe:
    """Dynamic int8 for onnxruntime."""
    quantize = step(QuantizeDynamic(weight_bits=terms.weight_bits))
    return recipe("int8-dynamic", terms, (*start(terms), quantize))


def twin(of: Recipe, terms: Terms, *, precision: Precision = "same") -> Recipe:
    """The same for LiteRT."""
    lite = step(ToTflite(precision=precision, target=terms.target, dims=terms.dims))
    return replace(of, name=of.name + TFLITE, steps=(*of.steps, lite))


def smaller(of: Recipe, settings: Settings) -> tuple[Step, ...]:
    """The steps of a recipe with one more before those that store the graph.

    It takes the place of one of the same pass.
    """
    others = tuple(s for s in of.steps if type(s.settings) is not type(settings))
    at = next((i for i, s in enumerate(others) if isinstance(s.settings, _STORING)), len(others))
    return (*others[:at], step(settings), *others[at:])


def settings_of(of: Recipe, kind: type[S]) -> S | None:
    """The settings of the step of that kind; ``None`` where the recipe has none."""
    return next((s.settings for s in of.steps if isinstance(s.settings, kind)), None)


def made(tried: Tried, *prefixes: str) -> list[Candidate]:
    """The candidates of recipes whose names begin so."""
    return [t for t in tried if isinstance(t, Candidate) and t.recipe.name.startswith(prefixes)]


def checks(candidate: Candidate, *names: str) -> tuple[Check, ...]:
    """What the gate said of these budgets."""
    lines = candidate.verdict.checks if candidate.verdict else ()
    return tuple(line for line in lines if line.name in names)


def holds(candidate: Candidate, *names: str) -> bool:
    """Whether none of these budgets fails, as far as they were measured."""
    return all(line.outcome != "fails" for line in checks(candidate, *names))


def accurate(candidate: Candidate) -> bool:
    """Whether nothing shows that it loses too much accuracy."""
    return holds(candidate, "accuracy_drop_points")
