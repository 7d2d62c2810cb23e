"""Model: an immutable file with a digest and a signature."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Format = Literal["onnx", "tflite"]

# Placeholders that exporters write for a free dimension without a name.
_NO_NAMES = ("", "?", "-1", "0", "None")


def name_dimension(tensor: str, axis: int, stated: str | None) -> str:
    """Name a free dimension: as the file states, else after the tensor and the axis (``x.2``)."""
    return f"{tensor}.{axis}" if stated is None or stated in _NO_NAMES else stated


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output; a free dimension is its name, or ``None`` if it has no name."""

    name: str
    dtype: str  # name of the numpy type
    shape: tuple[int | str | None, ...]

    def dimension(self, axis: int) -> str:
        """Return the name of a dimension, or its size as text."""
        dim = self.shape[axis]
        return str(dim) if isinstance(dim, int) else name_dimension(self.name, axis, dim)

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        told = f"{self.name} {self.dtype} [{dims}]"
        return "".join(c if c.isprintable() else "?" for c in told)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs of a model, in the file's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def free_dimensions(self) -> tuple[str, ...]:
        """Return the names of all free dimensions of the inputs, each once."""
        names = (
            spec.dimension(axis)
            for spec in self.inputs
            for axis, dim in enumerate(spec.shape)
            if not isinstance(dim, int)
        )
        return tuple(dict.fromkeys(names))

    def sample_axis(self, spec: TensorSpec) -> int:
        """Return the axis along which samples of an input are stacked.

        It is the first axis, unless that has a size and another axis has the name of the first axis
        of other inputs: ``[2, batch, 128]`` beside ``[batch, 512]``.
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
    """Source of a converted model.

    Attributes:
        given: The source as the user named it.
        digest: sha256 in hex of the source's file or files; for code, of the model it returned.
        tool: Name of the converter.
        versions: Versions of the packages that decide the result of the conversion, by name.
        notes: Remarks on the conversion for the user.
    """

    given: str
    digest: str
    tool: str
    versions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file; ``digest`` is the sha256 of its bytes in hex, including external data.

    ``beside`` are the files of its external data; ``origin`` is the source of a converted model.
    """

    path: Path
    format: Format
    digest: str
    signature: Signature
    beside: tuple[Path, ...] = ()
    origin: Origin | None = None

    @property
    def display_name(self) -> str:
        """Return the model as the user named it."""
        return self.origin.given if self.origin else str(self.path)

    @property
    def bytes(self) -> int:
        """Return the size of the file, or of all its files."""
        return sum(file.stat().st_size for file in (self.path, *self.beside))
