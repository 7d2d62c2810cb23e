"""A model: an immutable file with a digest and a signature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Format = Literal["onnx", "tflite"]

# What exporters write where a free dimension has no name.
_NO_NAMES = ("", "?", "-1", "0", "None")


def name_dimension(tensor: str, axis: int, stated: str | None) -> str:
    """Name a free dimension: as the file states, else after the tensor and the axis (``x.2``)."""
    return f"{tensor}.{axis}" if stated is None or stated in _NO_NAMES else stated


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output. A free dimension is its name, or ``None`` when it has none."""

    name: str
    dtype: str  # numpy's name
    shape: tuple[int | str | None, ...]

    def free_axes(self) -> Iterator[tuple[int, str]]:
        """Axes without a size, the first apart, which is the batch; each with its name."""
        for axis, dim in enumerate(self.shape):
            if axis and not isinstance(dim, int):
                yield axis, name_dimension(self.name, axis, dim)

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        told = f"{self.name} {self.dtype} [{dims}]"
        return "".join(c if c.isprintable() else "?" for c in told)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What goes into a model and what comes out, in the file's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def free_dimensions(self) -> tuple[str, ...]:
        """Names of all dimensions of inputs that have no size, each once."""
        names = (
            name_dimension(spec.name, axis, dim)
            for spec in self.inputs
            for axis, dim in enumerate(spec.shape)
            if not isinstance(dim, int)
        )
        return tuple(dict.fromkeys(names))

    @property
    def batch(self) -> int:
        """Samples that the model takes at once; 1 where it takes any number."""
        size = next((spec.shape[0] for spec in self.inputs if spec.shape), 1)
        return size if isinstance(size, int) else 1


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a model was before it was converted.

    Attributes:
        given: the source as the user named it.
        digest: sha256 in hex of the source's file or files; of code, of the model it gave.
        tool: what converted it.
        versions: of the packages that decide what the conversion gives, by name.
        notes: what a reader should know of the conversion.
    """

    given: str
    digest: str
    tool: str
    versions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file. ``digest`` is the sha256 of its bytes in hex, external data included.

    ``beside`` are the files that hold its external data; ``origin`` is what the file was
    converted from, if it was.
    """

    path: Path
    format: Format
    digest: str
    signature: Signature
    beside: tuple[Path, ...] = ()
    origin: Origin | None = None

    @property
    def given(self) -> str:
        """The model as the user named it."""
        return self.origin.given if self.origin else str(self.path)

    @property
    def bytes(self) -> int:
        """Size of the file, or of all its files."""
        return sum(file.stat().st_size for file in (self.path, *self.beside))
