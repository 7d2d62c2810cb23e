"""Named columns of a source, and the ``.npy`` arrays that hold them."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError
from edgekit.printable import escape_text
from edgekit_agent.preprocess.settings import Audio, RowFields, Text
from edgekit_agent.samples import Column

_MOST_BYTES = 1 << 62
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class SampleReading:
    """Settings by which a source was read, so that an application reads a sample in the same way.

    Attributes:
        audio: Settings of sounds.
        text: Settings of texts.
        tokenizer: File of the tokenizer of texts.
        fields: Names of the columns that feed each input.
    """

    audio: Audio | None = None
    text: Text | None = None
    tokenizer: Path | None = None
    fields: tuple[RowFields, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of one source; ``digest`` covers their contents.

    ``texts`` names the columns that hold text: a row has the code points (int32) of a text on its
    last axis, followed by zeros. ``class_names`` has the names of classes that the source knows.
    ``lines`` is the file of JSON lines of which each is a sample, if the source is one. ``reading``
    tells how an application reads such samples.
    """

    source: str
    columns: tuple[Column, ...]
    digest: str
    texts: frozenset[str] = frozenset()
    class_names: Mapping[int, str] = field(default_factory=dict)
    lines: Path | None = None
    reading: SampleReading = field(default_factory=SampleReading, compare=False)


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """A column on disk, and whether its numbers are the code points of texts."""

    column: Column
    is_text: bool


def clean_class_name(name: str) -> str:
    """Return the name of a class as a short line of printable characters."""
    text = escape_text(name[:_LONGEST_NAME])
    return text if len(name) <= _LONGEST_NAME else f"{text}…"


def build_table(source: str, arrays: Iterable[StoredArray], digest: str) -> Table:
    """Return the table of arrays."""
    found = tuple(arrays)
    return Table(
        source=source,
        columns=tuple(each.column for each in found),
        digest=digest,
        texts=frozenset(each.column.name for each in found if each.is_text),
    )


def describe_array(name: str, path: Path, where: str, *, start: int = 0) -> StoredArray:
    """Describe the ``.npy`` that begins at a byte of a file, without reading its data.

    Args:
        name: Name of the column.
        path: The file.
        where: Name of the array, for messages.
        start: The byte.

    Raises:
        UserError: It is no array of numbers or texts, or shorter than its header says.
    """
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
    return StoredArray(
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
