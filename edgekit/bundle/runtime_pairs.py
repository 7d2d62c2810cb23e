"""Comparison of the ONNX and the TFLite candidate of each method of compression."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.model import Format


@dataclass(frozen=True, kw_only=True)
class PairSide:
    """Method, time and loss of accuracy of one of the two candidates."""

    method: str  # what the recipe does apart from the conversion to a format
    format: Format
    p50_ms: float | None
    drop: float | None


@dataclass(frozen=True, kw_only=True)
class FormatPair:
    """ONNX and TFLite candidates of the same method."""

    name: str
    onnx: PairSide
    tflite: PairSide

    @property
    def ratio(self) -> float | None:
        """Return the time of the TFLite candidate divided by that of the ONNX candidate."""
        ours, theirs = self.tflite.p50_ms, self.onnx.p50_ms
        return ours / theirs if ours is not None and theirs else None


def find_pairs(sides: Iterable[PairSide]) -> tuple[FormatPair, ...]:
    """Find methods with a candidate in both formats, in order of first appearance."""
    found: dict[str, dict[Format, PairSide]] = {}
    for side in sides:
        found.setdefault(side.method, {}).setdefault(side.format, side)
    return tuple(
        FormatPair(name=method, onnx=both["onnx"], tflite=both["tflite"])
        for method, both in found.items()
        if len(both) == 2
    )
