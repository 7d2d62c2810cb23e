"""Recipes: passes with their settings, and the key of a candidate."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from edgekit.pass_settings import (
    IntegerBits,
    PluginSettings,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Settings,
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A pass of a recipe: its name in the passes table, its version and its settings."""

    name: str
    version: int
    settings: Settings | PluginSettings

    def as_json(self) -> dict[str, Any]:
        """Return the step as plain data for ``json.dumps``."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named sequence of steps."""

    name: str
    steps: tuple[Step, ...] = field(default=())
    seed: int = 0


def set_weight_bits(step: Step, bits: IntegerBits) -> Step:
    """Set the bits of int8 weights of a step that leaves them open."""
    settings = step.settings
    if not isinstance(settings, QuantizeStatic | QuantizeDynamic | QuantizeWeights):
        return step
    if settings.weight_bits != "auto":
        return step
    fixed = dataclasses.replace(settings, weight_bits=bits)
    return dataclasses.replace(step, settings=fixed)


# Raised when names or texts that are stored with a candidate change.
_KEY_SCHEMA = 3


def compute_candidate_key(
    recipe: Recipe, *, source: str, splits: dict[str, str], tools: dict[str, str]
) -> str:
    """Compute the hash of everything that decides a candidate's bytes, before it is made.

    Args:
        recipe: Steps with their versions and settings, and the seed.
        source: Digest of the source model.
        splits: Digest of each data split that the steps read, by the split's name.
        tools: Version of each package that the steps use, by its name.
    """
    facts = {
        "schema": _KEY_SCHEMA,
        "source": source,
        "splits": splits,
        "steps": [step.as_json() for step in recipe.steps],
        "seed": recipe.seed,
        "tools": tools,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
