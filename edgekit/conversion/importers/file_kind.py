"""Detection of a model file's kind by its content, whatever its name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from edgekit.conversion.importers.registry import Kind

# ``runnable``: an ONNX or TFLite file, which a runtime loads without conversion.
Content = Kind | Literal["runnable"]

_HEAD = 16
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_TFLITE = b"TFL3"  # from the fifth byte on
# Tag of the first field of an ONNX file (ir_version), as every exporter writes it.
_ONNX = b"\x08"
_PICKLE = b"\x80"
# The pickled magic number at the start of torch's older files.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Zip members that identify the exporter, by the end of their names.
_MEMBERS: tuple[tuple[str, Kind], ...] = (
    ("serialized_exported_program.json", "torch_program"),
    ("models/model.json", "torch_program"),
    ("model.weights.h5", "keras"),
    ("data.pkl", "torch_pickle"),
)


def detect_content(path: Path) -> Content | None:
    """Detect the kind of a file; ``None`` if its content is unknown or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_ZIP):
            return _detect_zip_content(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return None  # the loader reports the error
    if head[4:8] == _TFLITE or head.startswith(_ONNX):
        return "runnable"
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(_OLD_TORCH):
        return "torch_pickle"
    return "pickle" if head.startswith(_PICKLE) else None


def _detect_zip_content(path: Path) -> Kind | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    kinds = (kind for end, kind in _MEMBERS if any(name.endswith(end) for name in names))
    return next(kinds, None)
