"""Storage type, format and name of a recipe, derived from its steps."""

from __future__ import annotations

from typing import Literal, TypeVar

from edgekit.model import Format
from edgekit.recipe import (
    Float16,
    LowRank,
    Prune,
    PruneChannels,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Recipe,
    Step,
    ToOnnx,
    ToTflite,
)

# Storage of weights and activations: static and dynamic int8, int8 weights with float activations,
# int8 weights with 16-bit activations, 16-bit weights, or floats.
Storage = Literal["static", "dynamic", "weights", "int16x8", "float16", "float"]

# Sizes from 100 KiB on are named in whole KiB.
_FIGURES = 100 << 10

INT8: tuple[Storage, ...] = ("static", "dynamic")

S = TypeVar("S")


def settings_of(recipe: Recipe, kind: type[S]) -> S | None:
    """Return the settings of the given type; ``None`` if the recipe has no such step.

    Args:
        recipe: the recipe.
        kind: type of the settings of one pass.
    """
    return next((s.settings for s in recipe.steps if isinstance(s.settings, kind)), None)


def storage(recipe: Recipe) -> Storage:
    """Return how a recipe stores weights and activations."""
    lite = settings_of(recipe, ToTflite)
    if lite is not None and lite.precision != "same":
        return lite.precision
    kinds: tuple[tuple[type, Storage], ...] = (
        (QuantizeStatic, "static"),
        (QuantizeDynamic, "dynamic"),
        (QuantizeWeights, "weights"),
        (Float16, "float16"),
    )
    return next((name for kind, name in kinds if settings_of(recipe, kind) is not None), "float")


def format_of(recipe: Recipe) -> Format:
    """Return the file format after the steps of a recipe."""
    return "tflite" if settings_of(recipe, ToTflite) is not None else "onnx"


def few_bits(recipe: Recipe) -> QuantizeWeights | None:
    """Return the settings of low-bit weights with a size limit; ``None`` without such a step."""
    found = settings_of(recipe, QuantizeWeights)
    return found if found is not None and found.most_bytes is not None else None


def is_shrunk(recipe: Recipe) -> bool:
    """Return whether a pass removes channels, ranks or single weights."""
    return any(isinstance(s.settings, PruneChannels | LowRank | Prune) for s in recipe.steps)


def is_plain(recipe: Recipe) -> bool:
    """Return whether a recipe keeps all weights, in 8 bits or more."""
    return not is_shrunk(recipe) and few_bits(recipe) is None


def name_of(steps: tuple[Step, ...]) -> str:
    """Name a recipe by its steps, such as ``pruned-40-static-tflite``."""
    recipe = Recipe(name="", steps=steps)
    if not steps:
        return "original"
    if all(isinstance(s.settings, ToOnnx) for s in steps):
        return "original-onnx"
    parts = [*_compression_labels(recipe), *_storage_label(recipe)]
    return "-".join([*parts, *(["tflite"] if format_of(recipe) == "tflite" else [])])


def _compression_labels(recipe: Recipe) -> list[str]:
    labels = []
    if channels := settings_of(recipe, PruneChannels):
        labels.append(f"pruned-{100 * channels.remove:.0f}")
    if ranks := settings_of(recipe, LowRank):
        labels.append(f"low-rank-{100 * ranks.keep:.0f}")
    if zeros := settings_of(recipe, Prune):
        labels.append(f"sparse-{100 * zeros.sparsity:.0f}")
    if (few := few_bits(recipe)) and few.most_bytes is not None:
        labels.append(f"low-bits-{_format_kib(few.most_bytes)}k")
    return labels


def _format_kib(size: int) -> str:
    """Format KiB with three digits, so that different small sizes have different names."""
    return f"{size // 1024}" if size >= _FIGURES else f"{size / 1024:.3g}"


def _storage_label(recipe: Recipe) -> list[str]:
    """Name the storage type; int8 is named only if all weights are kept."""
    kind, plain = storage(recipe), is_plain(recipe)
    if kind == "float":
        return ["original"] if plain else []
    if kind == "weights":
        return ["int8-weights"] if few_bits(recipe) is None else []
    static = settings_of(recipe, QuantizeStatic)
    ranges = [static.ranges] if static and kind == "static" and static.ranges != "auto" else []
    return ["-".join([*(["int8"] if plain and kind in INT8 else []), kind, *ranges])]
