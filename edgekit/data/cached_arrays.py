"""Arrays computed from files of other kinds, kept in the cache and written row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.data.table import Table, build_table, describe_array
from edgekit_agent.files import open_atomic, sha256_of

# Returns the file of the array of a name.
Locate = Callable[[str], Path]


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
