"""Storage and size of a recipe's model, read from its steps, and the name made of them."""

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

# How a recipe stores weights and activations: static and dynamic int8, int8 weights with float
# activations, 16-bit activations, 16-bit weights, or floats.
Storage = Literal["static", "dynamic", "weights", "int16x8", "float16", "float"]

# From this size on, whole KiB tell two sizes apart.
_FIGURES = 100 << 10

INT8: tuple[Storage, ...] = ("static", "dynamic")

S = TypeVar("S")


def settings_of(recipe: Recipe, kind: type[S]) -> S | None:
    """The settings of the step of that kind; ``None`` where the recipe has none."""
    return next((s.settings for s in recipe.steps if isinstance(s.settings, kind)), None)


def storage(recipe: Recipe) -> Storage:
    """How a recipe stores weights and activations."""
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
    """The format of the file that the steps of a recipe end in."""
    return "tflite" if settings_of(recipe, ToTflite) is not None else "onnx"


def few_bits(recipe: Recipe) -> QuantizeWeights | None:
    """The settings of weights that have as many bits as a file has room for."""
    found = settings_of(recipe, QuantizeWeights)
    return found if found is not None and found.most_bytes is not None else None


def is_shrunk(recipe: Recipe) -> bool:
    """Whether a pass of the recipe takes away channels, ranks or single weights."""
    return any(isinstance(s.settings, PruneChannels | LowRank | Prune) for s in recipe.steps)


def is_plain(recipe: Recipe) -> bool:
    """Whether a recipe stores the whole graph, without fewer bits than 8."""
    return not is_shrunk(recipe) and few_bits(recipe) is None


def name_of(steps: tuple[Step, ...]) -> str:
    """The name of a recipe with these steps, such as ``pruned-40-static-tflite``."""
    recipe = Recipe(name="", steps=steps)
    if not steps:
        return "original"
    if all(isinstance(s.settings, ToOnnx) for s in steps):
        return "original-onnx"
    parts = [*_labels(recipe), *_stored(recipe)]
    return "-".join([*parts, *(["tflite"] if format_of(recipe) == "tflite" else [])])


def _labels(recipe: Recipe) -> list[str]:
    labels = []
    if channels := settings_of(recipe, PruneChannels):
        labels.append(f"pruned-{100 * channels.remove:.0f}")
    if ranks := settings_of(recipe, LowRank):
        labels.append(f"low-rank-{100 * ranks.keep:.0f}")
    if zeros := settings_of(recipe, Prune):
        labels.append(f"sparse-{100 * zeros.sparsity:.0f}")
    if (few := few_bits(recipe)) and few.most_bytes is not None:
        labels.append(f"low-bits-{_kib(few.most_bytes)}k")
    return labels


def _kib(size: int) -> str:
    """KiB in three figures, so that two sizes for a small model have two names."""
    return f"{size // 1024}" if size >= _FIGURES else f"{size / 1024:.3g}"


def _stored(recipe: Recipe) -> list[str]:
    """The part of a name that tells the storage; the whole graph in int8 says so."""
    kind, plain = storage(recipe), is_plain(recipe)
    if kind == "float":
        return ["original"] if plain else []
    if kind == "weights":
        return ["int8-weights"] if few_bits(recipe) is None else []
    static = settings_of(recipe, QuantizeStatic)
    ranges = [static.ranges] if static and kind == "static" and static.ranges != "auto" else []
    return ["-".join([*(["int8"] if plain and kind in INT8 else []), kind, *ranges])]
