"""Storage type, format, method and name of a recipe, derived from its steps."""

from __future__ import annotations

from typing import Literal, TypeVar

from edgekit.model import Format
from edgekit.pass_settings import (
    Distil,
    Float16,
    LowRank,
    PruneChannels,
    PruneWeights,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    ToOnnx,
    ToTflite,
)
from edgekit.recipe import Recipe, Step

# Storage of weights and activations: static and dynamic int8, int8 weights with float activations,
# int8 weights with 16-bit activations, 16-bit weights, or floats.
Storage = Literal["static", "dynamic", "weights", "int16x8", "float16", "float"]

# Sizes from 100 KiB on are named in whole KiB.
_FIGURES = 100 << 10

INT8: tuple[Storage, ...] = ("static", "dynamic")

# Steps that store weights in fewer bits.
_STORAGES = (QuantizeWeights, QuantizeStatic, QuantizeDynamic, Float16)

S = TypeVar("S")


def find_settings(recipe: Recipe, kind: type[S]) -> S | None:
    """Return the settings of the given type; ``None`` if the recipe has no such step.

    Args:
        recipe: the recipe.
        kind: type of the settings of one pass.
    """
    return next((s.settings for s in recipe.steps if isinstance(s.settings, kind)), None)


def get_storage(recipe: Recipe) -> Storage:
    """Return how a recipe stores weights and activations."""
    lite = find_settings(recipe, ToTflite)
    if lite is not None and lite.precision != "same":
        return lite.precision
    kinds: tuple[tuple[type, Storage], ...] = (
        (QuantizeStatic, "static"),
        (QuantizeDynamic, "dynamic"),
        (QuantizeWeights, "weights"),
        (Float16, "float16"),
    )
    return next((name for kind, name in kinds if find_settings(recipe, kind) is not None), "float")


def get_format(recipe: Recipe) -> Format:
    """Return the file format after the steps of a recipe."""
    return "tflite" if find_settings(recipe, ToTflite) is not None else "onnx"


def find_low_bit_settings(recipe: Recipe) -> QuantizeWeights | None:
    """Return the settings of low-bit weights with a size limit; ``None`` without such a step."""
    found = find_settings(recipe, QuantizeWeights)
    return found if found is not None and found.most_bytes is not None else None


def is_shrunk(recipe: Recipe) -> bool:
    """Return whether a pass removes channels, ranks or single weights."""
    return any(isinstance(s.settings, PruneChannels | LowRank | PruneWeights) for s in recipe.steps)


def is_distilled(recipe: Recipe) -> bool:
    """Return whether the model learns from the original."""
    return find_settings(recipe, Distil) is not None


def is_plain(recipe: Recipe) -> bool:
    """Return whether a recipe keeps all weights, in 8 bits or more."""
    return not is_shrunk(recipe) and find_low_bit_settings(recipe) is None


def format_name(steps: tuple[Step, ...]) -> str:
    """Name a recipe by its steps, such as ``pruned-40-static-tflite``."""
    if steps and _only_converts(steps):
        return f"{format_method(steps)}-onnx"
    suffix = "-tflite" if get_format(Recipe(name="", steps=steps)) == "tflite" else ""
    return f"{format_method(steps)}{suffix}"


def format_method(steps: tuple[Step, ...]) -> str:
    """Name what steps do apart from the conversion to a format, such as ``pruned-40-static``."""
    recipe = Recipe(name="", steps=steps)
    if _only_converts(steps):
        return "original"
    smaller, stored = _list_compression_labels(recipe), _list_storage_labels(recipe)
    kinds = [type(step.settings) for step in steps]
    storing = next((i for i, kind in enumerate(kinds) if kind in _STORAGES), len(kinds))
    first = ["distilled"] if Distil in kinds[:storing] else []
    second = ["distilled"] if Distil in kinds[storing:] else []
    return "-".join([*smaller, *first, *stored, *second])


def _only_converts(steps: tuple[Step, ...]) -> bool:
    """Return whether steps do no more than convert a .tflite file to ONNX."""
    return all(isinstance(step.settings, ToOnnx) for step in steps)


def _list_compression_labels(recipe: Recipe) -> list[str]:
    labels = []
    if channels := find_settings(recipe, PruneChannels):
        labels.append(f"pruned-{100 * channels.remove:.0f}")
    if ranks := find_settings(recipe, LowRank):
        labels.append(f"low-rank-{100 * ranks.keep:.0f}")
    if zeros := find_settings(recipe, PruneWeights):
        labels.append(f"sparse-{100 * zeros.sparsity:.0f}")
    if (few := find_low_bit_settings(recipe)) and few.most_bytes is not None:
        labels.append(f"low-bits-{_format_kib(few.most_bytes)}k")
    return labels


def _format_kib(size: int) -> str:
    """Format KiB with three digits, so that different small sizes have different names."""
    return f"{size // 1024}" if size >= _FIGURES else f"{size / 1024:.3g}"


def _list_storage_labels(recipe: Recipe) -> list[str]:
    """Name the storage type; int8 is named only if all weights are kept."""
    kind, plain = get_storage(recipe), is_plain(recipe)
    if kind == "float":
        return ["original"] if plain else []
    if kind == "weights":
        return ["int8-weights"] if find_low_bit_settings(recipe) is None else []
    static = find_settings(recipe, QuantizeStatic)
    ranges = [static.ranges] if static and kind == "static" and static.ranges != "auto" else []
    return ["-".join([*(["int8"] if plain and kind in INT8 else []), kind, *ranges])]
