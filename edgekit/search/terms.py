"""What a search starts from and has tried, and the recipes that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.model import Format
from edgekit.passes import step
from edgekit.recipe import (
    Clean,
    Float16,
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
from edgekit.search.forms import name_of

# Passes that make a graph smaller come before these, which store it.
_STORING = (QuantizeWeights, QuantizeStatic, QuantizeDynamic, Float16, ToTflite)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What recipes start from, and what they may end in.

    Attributes:
        source: format of the source model.
        formats: of the files that candidates may be.
        weight_bits: of int8 weights where the model will run.
        seed: seed of every random choice.
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
    return Recipe(name=name_of(()), seed=seed)


def recipe(terms: Terms, *steps: Step) -> Recipe:
    """A recipe of these steps, named after them."""
    return Recipe(name=name_of(steps), steps=steps, seed=terms.seed)


def start(terms: Terms) -> tuple[Step, ...]:
    """The first steps of every recipe: an ONNX graph without operators that have no effect."""
    return (*([step(ToOnnx())] if terms.source == "tflite" else []), step(Clean()))


def static(ranges: Ranges, terms: Terms) -> Recipe:
    """Static int8 for onnxruntime."""
    return recipe(
        terms, *start(terms), step(QuantizeStatic(ranges=ranges, weight_bits=terms.weight_bits))
    )


def dynamic(terms: Terms) -> Recipe:
    """Dynamic int8 for onnxruntime."""
    return recipe(terms, *start(terms), step(QuantizeDynamic(weight_bits=terms.weight_bits)))


def twin(of: Recipe, terms: Terms, *, precision: Precision = "same") -> Recipe:
    """The same for LiteRT."""
    lite = step(ToTflite(precision=precision, target=terms.target, dims=terms.dims))
    return recipe(terms, *of.steps, lite)


def smaller(of: Recipe, settings: Settings, terms: Terms) -> Recipe:
    """A recipe with one more step before those that store the graph.

    It takes the place of one of the same pass. Where nothing stores the weights in 8 bits, those
    of few bits are stored as they are.
    """
    steps = of.steps
    if not steps:  # the original file itself
        lite = step(ToTflite(target=terms.target, dims=terms.dims))
        steps = (*start(terms), *([lite] if terms.source == "tflite" else []))
    others = tuple(s for s in steps if type(s.settings) is not type(settings))
    at = next((i for i, s in enumerate(others) if isinstance(s.settings, _STORING)), len(others))
    return recipe(terms, *others[:at], step(settings), *others[at:])


def made(tried: Tried, which: Callable[[Recipe], bool]) -> list[Candidate]:
    """The candidates of the recipes that meet a condition."""
    return [t for t in tried if isinstance(t, Candidate) and which(t.recipe)]


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


def runs(candidate: Candidate) -> bool:
    """Whether it runs where it should."""
    return not (candidate.verdict and candidate.verdict.reasons)
