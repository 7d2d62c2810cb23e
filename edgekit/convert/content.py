"""The kind of a model file, told by its content: a file may have any name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from edgekit.convert import Kind

# ``runnable``: an .onnx or .tflite file, which a runtime takes as it is.
Content = Kind | Literal["runnable"]

_HEAD = 16
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_TFLITE = b"TFL3"  # from the fifth byte on
# The first field of an ONNX file as every exporter writes it: the number of its format.
_ONNX = b"\x08"
_PICKLE = b"\x80"
# A pickle of the number that torch begins its older files with.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Members of a zip archive that tell who wrote it, by the end of their names.
_MEMBERS: tuple[tuple[str, Kind], ...] = (
    ("serialized_exported_program.json", "torch_program"),
    ("models/model.json", "torch_program"),
    ("model.weights.h5", "keras"),
    ("data.pkl", "torch_pickle"),
)


def content_of(path: Path) -> Content | None:
    """The kind of a file; ``None`` where its content does not tell, or it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_ZIP):
            return _content_of_zip(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return None  # whoever opens it says why
    if head[4:8] == _TFLITE or head.startswith(_ONNX):
        return "runnable"
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(_OLD_TORCH):
        return "torch_pickle"
    return "pickle" if head.startswith(_PICKLE) else None


def _content_of_zip(path: Path) -> Kind | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    found = (kind for end, kind in _MEMBERS if any(name.endswith(end) for name in names))
    return next(found, None)
