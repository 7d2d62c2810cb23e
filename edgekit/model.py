"""A model: an immutable file with a digest and a signature."""

from __future__ import annotations

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

    def dimension(self, axis: int) -> str:
        """The name of a dimension, or its size as text."""
        dim = self.shape[axis]
        return str(dim) if isinstance(dim, int) else name_dimension(self.name, axis, dim)

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
            spec.dimension(axis)
            for spec in self.inputs
            for axis, dim in enumerate(spec.shape)
            if not isinstance(dim, int)
        )
        return tuple(dict.fromkeys(names))

    def sample_axis(self, spec: TensorSpec) -> int:
        """The axis along which samples of an input are stacked.

        The first, unless that has a size and another one bears the name of the first axis of other
        inputs: ``[2, batch, 128]`` beside ``[batch, 512]``.
        """
        if not spec.shape or not isinstance(spec.shape[0], int):
            return 0
        firsts = {each.shape[0] for each in self.inputs if each.shape}
        names = [
            dim if isinstance(dim, str) and name_dimension("", 0, dim) == dim else None
            for dim in spec.shape
        ]
        return next((a for a, name in enumerate(names) if name is not None and name in firsts), 0)


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
