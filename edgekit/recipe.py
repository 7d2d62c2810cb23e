"""Recipes: the settings of every pass as data, and the key of what a recipe will make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Estimator = Literal["minmax", "average", "percentile", "entropy", "mse"]
Ranges = Literal["auto", "minmax", "average", "percentile", "entropy", "mse"]
WeightBits = Literal[7, 8]
WeightWidth = Literal[2, 3, 4, 5, 6, 7, 8]


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Fold constants and BatchNorm, drop what has no effect. Bit-exact up to rounding."""


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic:
    """Static int8 as QDQ: unsigned 8-bit activations, signed per-channel weights.

    ``ranges`` says how an activation's range is taken from the calibration samples:
    ``minmax`` all of it, ``average`` the moving average of each sample's extremes,
    ``percentile`` all but the ``100 - percentile`` most extreme values, ``entropy`` the range
    whose histogram diverges least, ``mse`` the one with the least squared error, and ``auto`` for
    each value the one of these that makes the least error in what reads the value, on samples
    that no range was taken from. ``bias_correction`` makes up for what rounding and clipping
    shift on average, ``equalise`` evens out the channels between two layers; both only where that
    lowers the error on such samples.

    Weights of 7 bits saturate nowhere; those of 8 are for processors with 8-bit dot products
    (VNNI) and for Arm.
    """

    ranges: Ranges = "auto"
    weight_bits: WeightBits = 7
    percentile: float = 99.99
    max_samples: int = 512
    bias_correction: bool = True
    equalise: bool = True


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
    max_samples: int = 256


@dataclass(frozen=True, kw_only=True)
class Float16:
    """Weights stored in 16 bits and widened when the model is loaded; all else stays float32."""


Settings = Clean | QuantizeStatic | QuantizeDynamic | QuantizeWeights | Float16


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
