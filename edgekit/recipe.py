"""Recipes: the settings of every pass as data, and the key of what a recipe will make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Within:
    """Bounds of a setting, both allowed; written beside its type, ``Annotated[int, Within(1)]``."""

    low: float
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies between them."""
        return self.low <= value and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"of at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"


SampleCount = Annotated[int, Within(1)]
Ranges = Literal["minmax", "percentile", "mse"]
WeightBits = Literal[7, 8]
WeightWidth = Literal[2, 3, 4, 5, 6, 7, 8]


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Fold constants and BatchNorm, drop what has no effect. Bit-exact up to rounding."""


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic:
    """Static int8 as QDQ: unsigned 8-bit activations, signed per-channel weights.

    ``ranges`` says how an activation's range is taken from the calibration samples:
    ``minmax`` all of it, ``percentile`` all but the ``100 - percentile`` most extreme values,
    ``mse`` the range with the least squared error. Weights of 7 bits saturate nowhere; those of
    8 are for processors with 8-bit dot products (VNNI) and for Arm.
    """

    ranges: Ranges = "percentile"
    weight_bits: WeightBits = 7
    percentile: Annotated[float, Within(50, 100)] = 99.99
    max_samples: SampleCount = 512


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic:
    """Dynamic int8: activations quantised at run time, 8-bit embeddings.

    ``weight_bits`` as in ``QuantizeStatic``.
    """

    weight_bits: WeightBits = 7


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights:
    """Weights of ``bits`` bits in an int8 container, per channel, by GPTQ; activations float.

    ``edge_bits`` are those of the first and the last layer, ``embedding_bits`` of tables gathered
    by rows. Widths up to 7 saturate nowhere.
    """

    bits: WeightWidth = 4
    edge_bits: WeightWidth = 7
    embedding_bits: WeightWidth = 4
    max_samples: SampleCount = 256


Settings = Clean | QuantizeStatic | QuantizeDynamic | QuantizeWeights


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of a recipe: its name in the passes table, its version and its settings."""

    name: str
    version: int
    settings: Settings

    def as_json(self) -> dict[str, Any]:
        """The step as what ``json.dumps`` takes."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named list of steps, run one after the other."""

    name: str
    steps: tuple[Step, ...] = field(default=())
    seed: int = 0


def candidate_key(
    recipe: Recipe, *, source: str, splits: dict[str, str], tools: dict[str, str]
) -> str:
    """Hash of everything that decides a candidate's bytes, known before it is made.

    Args:
        recipe: steps with their versions and settings, and the seed.
        source: digest of the source model.
        splits: digest of each data split that the steps read, by the split's name.
        tools: version of each package that the steps use, by its name.
    """
    facts = {
        "source": source,
        "splits": splits,
        "steps": [step.as_json() for step in recipe.steps],
        "seed": recipe.seed,
        "tools": tools,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
