"""The two forms of each recipe, for onnxruntime and for LiteRT, beside each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.model import Format


@dataclass(frozen=True, kw_only=True)
class Side:
    """One form, as far as it was measured."""

    name: str
    format: Format
    p50_ms: float | None
    drop_points: float | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A recipe in both forms."""

    name: str
    onnx: Side
    tflite: Side

    @property
    def ratio(self) -> float | None:
        """Time of the TFLite form over that of the ONNX form."""
        ours, theirs = self.tflite.p50_ms, self.onnx.p50_ms
        return ours / theirs if ours is not None and theirs else None


def paired(sides: Iterable[Side]) -> tuple[Pair, ...]:
    """The recipes that were made in both forms, in the order in which they were first seen."""
    found: dict[str, dict[Format, Side]] = {}
    for side in sides:
        stem = side.name.removesuffix("-tflite").removesuffix("-onnx")
        found.setdefault(stem, {}).setdefault(side.format, side)
    return tuple(
        Pair(name=name, onnx=both["onnx"], tflite=both["tflite"])
        for name, both in found.items()
        if len(both) == 2
    )
