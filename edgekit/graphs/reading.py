"""Open a model file of any known format, or say in one line what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import UserError
from edgekit.model import Model

_TFLITE_MAGIC = b"TFL3"


def read_model(path: Path) -> Model:
    """The model in a file, checked: it parses, is complete, and a runtime accepts it.

    Raises:
        UserError: missing, damaged, of another format, or beyond what this version can run.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a model file", hint="give a .onnx or .tflite file")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise UserError(f"{path}: the file is empty")
    if head[4:8] == _TFLITE_MAGIC:
        from edgekit.graphs.tflite import read_tflite

        return read_tflite(path)
    from edgekit.graphs.onnx_file import read_onnx

    return read_onnx(path)
