"""External data of .onnx files: find, check and load it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from onnx import ModelProto, TensorProto

from edgekit.errors import UserError


def list_external_files(path: Path, tensors: Iterable[TensorProto]) -> list[Path]:
    """List the external data files of the model in ``path``, each once.

    Args:
        path: the .onnx file.
        tensors: all tensors of the model.

    Raises:
        UserError: a file is missing, too short, or outside the model's folder.
    """
    files: dict[Path, None] = {}
    for tensor in tensors:
        if is_external(tensor):
            files[_check_file(path, tensor)] = None
    return list(files)


def is_external(tensor: TensorProto) -> bool:
    """Return whether the data of a tensor are in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def load_external(path: Path, tensor: TensorProto) -> None:
    """Read the external data of one tensor of the model in ``path``, in place.

    Raises:
        UserError: as ``list_external_files``.
    """
    file = _check_file(path, tensor)
    offset, length = _read_range(path, tensor)
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length or count_plain_bytes(tensor) or -1)
    tensor.raw_data = data
    clear_external_location(tensor)


def clear_external_location(tensor: TensorProto) -> None:
    """Mark the data of a tensor as stored in the model itself, in place."""
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def strip_external(proto: ModelProto, tensors: Iterable[TensorProto]) -> ModelProto:
    """Replace external tensors by empty ones, for checks of the graph structure.

    Args:
        proto: the model; edited in place and returned.
        tensors: all tensors of the model.
    """
    for tensor in tensors:
        if is_external(tensor):
            clear_external_location(tensor)
            del tensor.dims[:]
            tensor.dims.append(0)
    return proto


def _get_location(tensor: TensorProto) -> str:
    return next((e.value for e in tensor.external_data if e.key == "location"), "")


def _check_file(path: Path, tensor: TensorProto) -> Path:
    location = _get_location(tensor)
    file = path.parent / location
    if not _is_inside(path, location):
        raise UserError(
            f"{path}: tensor {tensor.name!r} refers to {location!r}, outside the model's folder"
        )
    if not file.is_file():
        raise UserError(
            f"{path}: external data {location!r} of tensor {tensor.name!r} is missing",
            hint=f"put the file into the folder of {path.name}",
        )
    offset, length = _read_range(path, tensor)
    end = offset + (length or count_plain_bytes(tensor))
    if file.stat().st_size < end:
        raise UserError(f"{path}: external data {location!r} is truncated, {end} bytes needed")
    return file


def _is_inside(path: Path, location: str) -> bool:
    """Return whether a file is in the model's folder, or in the folder that the model links to.

    Caches of model hubs hold links: ``model.onnx`` and its data link to files of one folder.
    """
    if not location or PurePosixPath(location).is_absolute():
        return False
    try:
        file = (path.parent / location).resolve()
        file.is_file()
        return any(
            file.is_relative_to(folder) for folder in (path.parent.resolve(), path.resolve().parent)
        )
    # The name holds a NUL or is too long, or links form a loop.
    except (OSError, ValueError, RuntimeError):
        return False


def _read_range(path: Path, tensor: TensorProto) -> tuple[int, int]:
    entries = {e.key: e.value for e in tensor.external_data}
    location = _get_location(tensor)
    try:
        offset, length = (int(entries.get(key) or 0) for key in ("offset", "length"))
    except ValueError as error:
        raise UserError(f"{path}: external data {location!r}: {error}") from error
    if min(offset, length) < 0:
        raise UserError(f"{path}: external data {location!r}: a negative offset or length")
    return offset, length


def count_plain_bytes(tensor: TensorProto) -> int:
    """Return the bytes of a tensor; 0 if its type is packed or unknown."""
    sizes = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8}
    sizes |= {TensorProto.INT8: 1, TensorProto.UINT8: 1, TensorProto.INT32: 4, TensorProto.INT64: 8}
    return int(math.prod(tensor.dims)) * sizes.get(tensor.data_type, 0)
