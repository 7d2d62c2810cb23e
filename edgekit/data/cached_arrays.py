"""Arrays computed from other files or arrays, kept in the cache and written row by row."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.data.column_rows import iter_chunks
from edgekit.data.lengths import pad_row
from edgekit.data.table import Table, build_table, describe_array
from edgekit.data.targets import is_target_name
from edgekit.errors import UserError
from edgekit_agent.files import open_atomic, sha256_of
from edgekit_agent.samples import Column

# Returns the file of the array of a name.
Locate = Callable[[str], Path]

_COLORS, _IMAGE_AXES = 3, 4
_MOST_PADDED_BYTES = 1 << 34


def build_cached_table(
    source: str, facts: str, names: Sequence[str], fill: Callable[[Locate], None], cache: Path
) -> Table:
    """Return a table of arrays from the cache, or write them.

    Args:
        source: Name of the source, for messages.
        facts: Everything that decides the content of the arrays.
        names: Names of the arrays.
        fill: Writes a ``.npy`` for each name, to the file that ``Locate`` returns.
        cache: Folder of the cache.
    """
    digest = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()
    folder = cache / "columns" / digest
    files = {n: folder / f"{hashlib.sha256(n.encode()).hexdigest()[:16]}.npy" for n in names}
    arrays, seal = list(files.values()), folder / "seal"
    if not are_files_sealed(seal, arrays):
        seal.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        fill(files.__getitem__)
        seal_files(seal, arrays)
    found = (describe_array(name, file, f"{source}: {name}") for name, file in files.items())
    return build_table(source, found, digest)


def compute_files_digest(files: Sequence[Path]) -> str:
    """Compute one digest over the names and contents of files."""
    lines = [f"{file.name} {sha256_of(str(file))}" for file in files]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def save_array(target: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy``, completely or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(str(target)) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


@contextmanager
def open_rows(
    path: Path, dtype: str, shape: Sequence[int]
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Open a new ``.npy`` for rows of a shape; yield the function that appends rows to it."""
    kind, count = np.dtype(dtype), 0
    with open_atomic(str(path)) as file:

        def write_header() -> None:
            header = {"descr": kind.str, "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(file, header)

        def append(rows: NDArray[Any]) -> None:
            nonlocal count
            file.write(np.ascontiguousarray(rows, kind).tobytes())
            count += len(rows)

        write_header()
        yield append
        # numpy pads headers, so that one with another number of rows has the same size.
        file.seek(0)
        write_header()


@contextmanager
def open_padded_rows(
    path: Path, lengths: Path | None, dtype: str, shape: Sequence[int]
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Open a new ``.npy`` for rows of different sizes; yield the function that appends one row.

    Args:
        path: File of the rows, padded with zeros.
        lengths: File of the size of each row along each axis; ``None`` = all have the same size.
        dtype: Type of the rows.
        shape: Largest size along each axis.
    """
    sizes: list[tuple[int, ...]] = []
    with open_rows(path, dtype, shape) as append:

        def append_row(row: NDArray[Any]) -> None:
            append(pad_row(row, shape)[np.newaxis])
            sizes.append(row.shape)

        yield append_row
    if lengths is not None:
        save_array(lengths, np.array(sizes, np.int64).reshape(len(sizes), len(shape)))


def check_padded_size(source: str, count: int, dtype: str, shape: Sequence[int]) -> None:
    """Refuse samples of different sizes that are too large when they are padded.

    Raises:
        UserError: They need more than the cache may hold.
    """
    size = count * math.prod(shape) * np.dtype(dtype).itemsize
    if size > _MOST_PADDED_BYTES:
        raise UserError(
            f"{source}: {count} samples of different sizes, padded to {list(shape)} in the cache, "
            f"need {size / 2**30:.0f} GiB, more than {_MOST_PADDED_BYTES >> 30}",
            hint="leave out the largest samples, or use fewer",
        )


def is_color_images(column: Column) -> bool:
    """Return whether a column holds bytes of images [N, height, width, 3]."""
    shape = column.shape
    return column.dtype == "uint8" and len(shape) == _IMAGE_AXES and shape[-1] == _COLORS


def reverse_channels(table: Table, cache: Path) -> Table:
    """Return a table whose color images have their channels in reverse order; targets stay."""
    columns = [c for c in table.columns if is_color_images(c) and not is_target_name(c.name)]
    if not columns:
        return table
    reversed_columns = reverse_columns(columns, f"{table.source} {table.digest}", cache)
    by_name = {column.name: column for column in reversed_columns}
    return replace(
        table,
        columns=tuple(by_name.get(column.name, column) for column in table.columns),
        digest=f"{table.digest} reversed channels",
    )


def reverse_columns(columns: Sequence[Column], facts: str, cache: Path) -> tuple[Column, ...]:
    """Return columns of color images with their channels in reverse order.

    Args:
        columns: The columns, with different names.
        facts: Description of what they hold, by which an earlier result is found.
        cache: Folder for the arrays.
    """

    def fill(locate: Locate) -> None:
        for column in columns:
            with open_rows(locate(column.name), column.dtype, column.shape[1:]) as append:
                for _, chunk in iter_chunks([column]):
                    append(chunk[column.name][..., ::-1])

    places = [(c.name, c.path, c.offset, c.shape) for c in columns]
    names = [column.name for column in columns]
    table = build_cached_table("", f"reversed channels 1 {facts} {places}", names, fill, cache)
    return tuple(
        replace(made, axis=column.axis) for made, column in zip(table.columns, columns, strict=True)
    )
