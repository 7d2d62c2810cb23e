"""A model: an immutable file with a digest and a signature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["onnx", "tflite"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output. A free dimension is its name, or ``None`` when it has none."""

    name: str
    dtype: str  # numpy's name
    shape: tuple[int | str | None, ...]

    def free_axes(self) -> Iterator[tuple[int, str]]:
        """Axes without a size, the first apart, which is the batch; each with what it is called.

        One without a name is called after the tensor and its number: ``x.2``.
        """
        for axis, dim in enumerate(self.shape):
            if axis and not isinstance(dim, int):
                yield axis, dim if dim and dim != "?" else f"{self.name}.{axis}"

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype} [{dims}]"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What goes into a model and what comes out, in the file's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file. ``digest`` is the sha256 of its bytes in hex, external data included.

    ``beside`` are the files that hold its external data.
    """

    path: Path
    format: Format
    digest: str
    signature: Signature
    beside: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the file, or of all its files."""
        return sum(file.stat().st_size for file in (self.path, *self.beside))
