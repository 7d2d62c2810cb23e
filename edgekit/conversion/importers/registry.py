"""Conversion of models of other tools to ONNX, with one module for each tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnx import ModelProto

Arrays = Sequence[Any]  # of numpy, in the order of the graph's inputs or outputs
Kind = Literal["keras", "saved_model", "torch_program", "torch_pickle", "pickle", "function"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model to convert.

    Attributes:
        kind: Kind of source; key of ``SOURCES``.
        display_name: Source as the user named it, for messages.
        path: The file or folder; for a function, the project's folder.
        name: Signature of a SavedModel, or ``module:function``; else empty.
        trusted: Whether code in the file may run.
    """

    kind: Kind
    display_name: str
    path: Path
    name: str = ""
    trusted: bool = False


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted graph, and the means to check that it computes the same as the source.

    Attributes:
        proto: The graph, after ``postprocess.standardize_graph``.
        tool: Name of the tool that converted it.
        reference: Computes the source's outputs from inputs, both in the graph's order.
        examples: Example inputs of the source, compared besides random ones.
        draw: Draws suitable inputs for a number of rows; ``None`` = draw from the signature.
        rows: Numbers of rows to compare at once where the batch is free.
        vocabulary: Upper bound (exclusive) of random integers where ``draw`` is ``None``.
        stray: Fraction of the rows that may differ: trees jump where a float rounds differently.
        notes: Remarks for the user.
    """

    proto: ModelProto
    tool: str
    reference: Callable[[Arrays], Arrays]
    examples: tuple[Arrays, ...] = ()
    draw: Callable[[int], Arrays] | None = None
    rows: tuple[int, ...] = (1, 3)  # one, and a size unlikely to match another axis by chance
    vocabulary: int = 2
    stray: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Importer of one kind of source.

    Attributes:
        function: Converter ``(Source) -> Conversion`` as ``module:function``.
        suffixes: Suffixes of its files.
        packages: Packages whose versions determine the result.
        pickled: Whether reading the file runs code in it.
    """

    function: str
    suffixes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    pickled: bool = False


_TENSORFLOW = ("tensorflow", "keras", "tf-keras", "tf2onnx")
_TORCH = ("torch", "onnxscript")
_SKLEARN = ("scikit-learn", "skl2onnx")

SOURCES: dict[Kind, Importer] = {
    "keras": Importer(
        function="edgekit.conversion.importers.keras_files:convert",
        suffixes=(".keras", ".h5", ".hdf5"),
        packages=_TENSORFLOW,
    ),
    "saved_model": Importer(
        function="edgekit.conversion.importers.keras_saved_model:convert", packages=_TENSORFLOW
    ),
    "torch_program": Importer(
        function="edgekit.conversion.importers.torch_files:convert_program",
        suffixes=(".pt2",),
        packages=_TORCH,
        pickled=True,
    ),
    "torch_pickle": Importer(
        function="edgekit.conversion.importers.torch_files:convert_pickle",
        suffixes=(".pt", ".pth"),
        packages=_TORCH,
        pickled=True,
    ),
    "pickle": Importer(
        function="edgekit.conversion.importers.pickles:convert",
        suffixes=(".pkl", ".pickle", ".joblib"),
        packages=(*_SKLEARN, *_TORCH, *_TENSORFLOW),
        pickled=True,
    ),
    "function": Importer(
        function="edgekit.conversion.importers.entry_point:convert",
        packages=(*_TENSORFLOW, *_TORCH, *_SKLEARN),
    ),
}

# Part of cache keys; increased when the same sources may be converted to other bytes.
VERSION = 1

# Extra that installs each of these modules.
EXTRAS = {
    **dict.fromkeys(("tensorflow", "keras", "tf_keras", "tf2onnx", "h5py"), "tensorflow"),
    **dict.fromkeys(("torch", "onnxscript"), "torch"),
    **dict.fromkeys(("sklearn", "skl2onnx", "joblib"), "sklearn"),
}
