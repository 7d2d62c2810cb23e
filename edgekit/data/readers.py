"""Arrays on disk as columns that are read row by row, from any supported source."""

from __future__ import annotations

import ast
import hashlib
import importlib
import lzma
import math
import operator
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.config.project import PreprocessSettings
from edgekit.data.images import ImageSettings, compute_files_digest, decode_folder, save_array
from edgekit.errors import UserError
from edgekit.progress import Tick, ignore_progress
from edgekit_agent.files import open_atomic, sha256_of
from edgekit_agent.samples import Column

_CHUNK = 1 << 20
_MOST_BYTES = 1 << 62
# Exceptions of reading a damaged, encrypted or mislabeled file.
_DAMAGE = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of one source; ``digest`` covers their contents.

    ``texts`` names the columns that hold text: a row has the code points (int32) of a text on its
    last axis, followed by zeros.
    """

    source: str
    columns: tuple[Column, ...]
    digest: str
    texts: frozenset[str] = frozenset()


def read_table(
    source: str,
    *,
    folder: Path,
    cache: Path,
    settings: PreprocessSettings | None = None,
    gray: bool = False,
    most: int | None = None,
    tick: Tick = ignore_progress,
) -> Table:
    """Read the columns of a ``.npz``, a folder of ``.npy`` or images, or a ``module:function``.

    Args:
        source: The source, relative to ``folder``.
        folder: Base folder of files and modules.
        cache: Folder for unpacked columns.
        settings: Resize and crop of images.
        gray: Decode images to one channel instead of three.
        most: Largest number of images to read from a folder; ``None`` = all.
        tick: Progress callback of image decoding.

    Raises:
        UserError: The source is missing, damaged, or of an unknown kind.
    """
    path = folder / source
    try:
        if path.is_dir():
            images = ImageSettings(settings=settings, gray=gray, most=most)
            return _read_folder(source, path, cache, images, tick)
        if path.is_file():
            return _read_npz(source, path, cache)
        if ":" in source:
            return _read_function(source, folder, cache)
    except _DAMAGE as error:
        raise UserError(f"{source}: cannot be read: {error}") from error
    raise UserError(f"{source}: no such file or folder", hint=f"looked in {folder.resolve()}")


# ---------------------------------------------------------------- npz and npy


def _read_npz(source: str, path: Path, cache: Path) -> Table:
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{source}: not an .npz file",
            hint="save arrays with numpy.savez(path, x=..., label=...)",
        )
    digest = sha256_of(str(path))
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            where = f"{source}: {name}"
            if member.compress_type == zipfile.ZIP_STORED:
                _verify_checksum(archive, member)
                arrays.append(
                    _describe_array(name, path, where, start=_find_data_start(path, member))
                )
            else:
                unpacked = cache / "columns" / digest / f"{_file_name(name)}.npy"
                seal = unpacked.with_suffix(".seal")
                if not are_files_sealed(seal, [unpacked]):
                    _unpack(archive, member, unpacked)
                    seal_files(seal, [unpacked])
                arrays.append(_describe_array(name, unpacked, where))
    if not arrays:
        raise UserError(f"{source}: contains no arrays")
    return _build_table(source, arrays, digest)


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _find_data_start(path: Path, member: zipfile.ZipInfo) -> int:
    # Name and extra field of the local header may be longer than those of the directory.
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    return member.header_offset + 30 + name + extra


def _verify_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as packed:
        while packed.read(_CHUNK):
            pass  # the last read raises BadZipFile if the checksum is wrong


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, open_atomic(str(target)) as file:
        while chunk := packed.read(_CHUNK):
            file.write(chunk)


@dataclass(frozen=True, kw_only=True)
class _Array:
    """A column on disk, and whether its numbers are the code points of texts."""

    column: Column
    is_text: bool


def _build_table(source: str, arrays: Iterable[_Array], digest: str) -> Table:
    found = tuple(arrays)
    return Table(
        source=source,
        columns=tuple(each.column for each in found),
        digest=digest,
        texts=frozenset(each.column.name for each in found if each.is_text),
    )


def _describe_array(name: str, path: Path, where: str, *, start: int = 0) -> _Array:
    with path.open("rb") as file:
        file.seek(start)
        shape, dtype = _read_header(file, where)
        offset = file.tell()
        rows = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        file.seek(0, 2)
        if file.tell() < offset + rows:
            raise UserError(f"{where}: the array is truncated")
    if not shape:
        raise UserError(f"{where}: a single value instead of one entry per sample")
    is_text = dtype.kind == "U"
    if is_text:  # numpy stores each character as a code point in four bytes
        shape, dtype = (*shape, dtype.itemsize // 4), np.dtype(np.int32)
    return _Array(
        column=Column(name, str(path.resolve()), offset, dtype.name, shape), is_text=is_text
    )


def read_array(path: Path, where: str) -> NDArray[Any]:
    """Read a small ``.npy`` as a whole.

    Raises:
        UserError: The file cannot be read, holds no numbers, or is shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file, where)
            _check_numeric(dtype, where)
            wanted = math.prod(shape) * dtype.itemsize
            data = file.read(min(wanted, path.stat().st_size))
    except OSError as error:
        raise UserError(f"{where}: {path}: cannot be read: {error.strerror}") from error
    if len(data) < wanted:
        raise UserError(f"{where}: {path}: the array is truncated")
    return np.frombuffer(data, dtype).reshape(shape)


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and dtype of a ``.npy`` without its data (format: numpy's NEP 1)."""
    try:
        version = np.lib.format.read_magic(file)
        length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        header = ast.literal_eval(file.read(length).decode("latin1" if version[0] < 3 else "utf8"))
        dtype, shape, in_fortran = (header[k] for k in ("descr", "shape", "fortran_order"))
        dtype = np.dtype(dtype)
        shape = tuple(operator.index(size) for size in shape)
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"{where}: not a numpy array: {error}") from error
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize > _MOST_BYTES:
        raise UserError(f"{where}: not a numpy array: invalid shape {list(shape)}")
    if dtype.kind != "U":
        _check_numeric(dtype, where)
    if in_fortran and len(shape) > 1:
        raise UserError(f"{where}: stored in Fortran order", hint="numpy.ascontiguousarray(array)")
    if dtype.byteorder == ">":
        raise UserError(f"{where}: stored big-endian", hint="array.astype(dtype.newbyteorder('<'))")
    return shape, dtype


def _check_numeric(dtype: np.dtype[Any], where: str) -> None:
    if dtype.hasobject or dtype.fields or dtype.kind not in "biuf":
        raise UserError(
            f"{where}: contains {dtype}, not numbers", hint="store plain numeric arrays"
        )


def _read_folder(source: str, path: Path, cache: Path, how: ImageSettings, tick: Tick) -> Table:
    arrays = sorted(path.glob("*.npy"))
    if arrays:
        found = (_describe_array(a.stem, a, f"{source}/{a.name}") for a in arrays)
        return _build_table(source, found, compute_files_digest(arrays))
    images = decode_folder(source, path, cache, how, tick)
    arrays = [images.folder / "x.npy", images.folder / "label.npy"]
    return _build_table(source, (_describe_array(a.stem, a, source) for a in arrays), images.digest)


# ---------------------------------------------------------------- functions


def _read_function(source: str, folder: Path, cache: Path) -> Table:
    arrays = _call_function(source, folder)
    lines = []
    found = []
    for name in sorted(arrays):
        array = _to_array(arrays[name], f"{source}: {name}")
        hashed = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        hashed.update(array.reshape(-1).view(np.uint8).data)
        digest = hashed.hexdigest()
        target = cache / "columns" / digest / "array.npy"
        save_array(target, array)
        lines.append(f"{name} {digest}")
        found.append(_describe_array(name, target, f"{source}: {name}"))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return _build_table(source, found, digest)


def _to_array(value: object, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(value, order="C")
    except ValueError as error:
        raise UserError(f"{where}: not an array: {error}") from error
    if array.dtype.kind not in "biufU":
        raise UserError(f"{where}: contains {array.dtype}, not numbers")
    if not array.ndim:
        raise UserError(f"{where}: a single value instead of one entry per sample")
    return array


def _call_function(source: str, folder: Path) -> Mapping[str, Any]:
    module, _, name = source.partition(":")
    sys.path.insert(0, str(folder.resolve()))
    try:
        function: Callable[[], object] = getattr(importlib.import_module(module), name)
        arrays = function()
    except (Exception, SystemExit) as error:
        raise UserError(f"{source}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder.resolve()))
    if not isinstance(arrays, Mapping) or not arrays or not all(isinstance(n, str) for n in arrays):
        raise UserError(
            f"{source}: must return a dict of arrays by name, not {type(arrays).__name__}"
        )
    return arrays
