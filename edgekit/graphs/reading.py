"""Open a model file of any known format, or say in one line what is wrong with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgekit.errors import UserError
from edgekit.model import Model

_TFLITE_MAGIC = b"TFL3"
_MOST_INPUT_BYTES = 2 << 30


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

        return _with_inputs_of_a_size(read_tflite(path))
    from edgekit.graphs.onnx_file import read_onnx

    return _with_inputs_of_a_size(read_onnx(path))


def _with_inputs_of_a_size(model: Model) -> Model:
    """The model, if memory can hold what it states of each input."""
    for spec in model.signature.inputs:
        stated = math.prod(dim for dim in spec.shape if isinstance(dim, int))
        needed = stated * np.dtype(spec.dtype).itemsize
        if needed > _MOST_INPUT_BYTES:
            raise UserError(
                f"{model.path}: the sizes of the input {spec} come to {needed >> 20:,} MiB, more "
                f"than the {_MOST_INPUT_BYTES >> 20:,} MiB that are fed at once",
                hint="export the model with the sizes it is run with, or leave them free",
            )
    return model
