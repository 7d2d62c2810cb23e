"""Interface to a graph that is being evaluated: types, constants and unused names."""

from __future__ import annotations

from typing import Protocol

from onnx import TensorProto

from edgekit.tflite.ir import Array, Shape


class EvaluationContext(Protocol):
    """Shapes and constants known so far, to which rewrites of single nodes add their own."""

    @property
    def opset(self) -> int:
        """Return the opset version of the standard operators."""

    def fresh(self, stem: str) -> str:
        """Return an unused name."""

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a value; ``None`` where a size is unknown."""

    def value(self, name: str) -> Array | None:
        """Return the value of a constant; ``None`` for a value computed at run time."""

    def add(self, tensor: TensorProto) -> None:
        """Add an initializer of a subgraph under its new, unused name."""

    def store(self, name: str, array: Array) -> None:
        """Record a value as a constant."""
