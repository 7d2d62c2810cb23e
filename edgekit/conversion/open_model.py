"""Opening of model files of any known format, with a one-line message for a bad file."""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekit.errors import UserError
from edgekit.model import Model, name_dimension

_TFLITE_MAGIC = b"TFL3"
_MOST_INPUT_BYTES = 2 << 30


def read_model(path: Path) -> Model:
    """Read a model file and check it: it parses, is complete, and a runtime accepts it.

    Raises:
        UserError: missing, damaged, of another format, or beyond the limits of this version.
    """
    check_model_file(path)
    if is_tflite(path):
        from edgekit.tflite.signature import read_tflite

        model = read_tflite(path)
    else:
        from edgekit.onnx_graph.io import read_onnx

        model = read_onnx(path)
    check_fed_sizes(model, {})
    return model


def check_model_file(path: Path) -> None:
    """Check that a path names a regular file that is not empty.

    Raises:
        UserError: it does not.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a model file", hint="give a .onnx or .tflite file")
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(
            f"{path}: a pipe or device, not a file", hint="save the model as a file first"
        )
    if not status.st_size:
        raise UserError(f"{path}: the file is empty")


def is_tflite(path: Path) -> bool:
    """Return whether a file begins like a .tflite file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(8)[4:8] == _TFLITE_MAGIC
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def check_fed_sizes(model: Model, dims: Mapping[str, int]) -> None:
    """Check that each input of a model fits in 2 GiB at these sizes of free dimensions.

    Args:
        model: the model.
        dims: sizes of free dimensions by name; others count as 1.

    Raises:
        UserError: it does not; the message names the input.
    """
    for spec in model.signature.inputs:
        sizes = [
            dim if isinstance(dim, int) else dims.get(name_dimension(spec.name, axis, dim), 1)
            for axis, dim in enumerate(spec.shape)
        ]
        byte_count = math.prod(sizes) * np.dtype(spec.dtype).itemsize
        if byte_count > _MOST_INPUT_BYTES:
            raise UserError(
                f"{model.display_name}: the input {spec} takes {byte_count >> 20:,} MiB, more than "
                f"the limit of {_MOST_INPUT_BYTES >> 20:,} MiB",
                hint="check the sizes; export the model with the sizes you use, or with dynamic "
                "ones",
            )
