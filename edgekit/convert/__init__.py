"""Models of other tools as ONNX: one file for each tool."""

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
    """What is to be converted.

    Attributes:
        kind: which row of the table it is.
        given: as the user named it; for messages.
        path: the file or folder; of a function, the project's folder.
        name: the signature of a SavedModel, or ``module:function``; else empty.
        trusted: whether code that the file carries may run.
    """

    kind: Kind
    given: str
    path: Path
    name: str = ""
    trusted: bool = False


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A graph, and what tells whether it computes what the source does.

    Attributes:
        proto: the graph; ``finishing.finished`` has been over it.
        tool: what converted it.
        reference: what the source itself gives for inputs, both in the graph's order.
        examples: inputs of the source's own, to compare on besides random ones.
        draw: inputs for so many rows that suit the source; ``None`` = from the signature.
        rows: how many rows are compared at once, where the batch is free.
        vocabulary: random integers are below it, where ``draw`` is ``None``.
        stray: part of the rows that may differ: trees jump where a float rounds differently.
        notes: what a reader should know.
    """

    proto: ModelProto
    tool: str
    reference: Callable[[Arrays], Arrays]
    examples: tuple[Arrays, ...] = ()
    draw: Callable[[int], Arrays] | None = None
    rows: tuple[int, ...] = (1, 3)  # one, and a number that no axis has by chance
    vocabulary: int = 2
    stray: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: what a kind of source is converted by.

    Attributes:
        function: ``module:function`` of (Source) -> Converted.
        suffixes: of the files that it takes.
        packages: those whose versions decide what comes of it.
        pickled: reading the file runs code that it carries.
    """

    function: str
    suffixes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    pickled: bool = False


_TENSORFLOW = ("tensorflow", "keras", "tf-keras", "tf2onnx")
_TORCH = ("torch", "onnxscript")
_SKLEARN = ("scikit-learn", "skl2onnx")

SOURCES: dict[Kind, Row] = {
    "keras": Row(
        function="edgekit.convert.keras_files:convert",
        suffixes=(".keras", ".h5", ".hdf5"),
        packages=_TENSORFLOW,
    ),
    "saved_model": Row(function="edgekit.convert.keras_saved_model:convert", packages=_TENSORFLOW),
    "torch_program": Row(
        function="edgekit.convert.torch_files:convert_program",
        suffixes=(".pt2",),
        packages=_TORCH,
        pickled=True,
    ),
    "torch_pickle": Row(
        function="edgekit.convert.torch_files:convert_pickle",
        suffixes=(".pt", ".pth"),
        packages=_TORCH,
        pickled=True,
    ),
    "pickle": Row(
        function="edgekit.convert.pickles:convert",
        suffixes=(".pkl", ".pickle", ".joblib"),
        packages=(*_SKLEARN, *_TORCH, *_TENSORFLOW),
        pickled=True,
    ),
    "function": Row(
        function="edgekit.convert.entry:convert", packages=(*_TENSORFLOW, *_TORCH, *_SKLEARN)
    ),
}

# Of the same sources and packages, what another version makes may have other bytes.
VERSION = 1

# Which extra brings what is imported under these names.
EXTRAS = {
    **dict.fromkeys(("tensorflow", "keras", "tf_keras", "tf2onnx", "h5py"), "tensorflow"),
    **dict.fromkeys(("torch", "onnxscript"), "torch"),
    **dict.fromkeys(("sklearn", "skl2onnx", "joblib"), "sklearn"),
}
