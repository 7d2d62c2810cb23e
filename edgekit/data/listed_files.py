"""Folders of files that are samples, with the targets that a CSV or their subfolders give them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.data.cached_arrays import compute_files_digest
from edgekit.data.csv_rows import (
    check_label,
    iter_csv_rows,
    read_header,
    read_number,
    to_narrow_array,
)
from edgekit.data.groups import GROUP, SLICE
from edgekit.data.table import clean_class_name
from edgekit.errors import UserError

Row = TypeVar("Row")

FILE, TEXT = "file", "text"
_TARGETS = ("label", "y", "target")
_LONGEST_TEXT = 10_000


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """Files in the order of the samples.

    ``arrays`` has one entry for each file: ``label`` or ``y``, ``group`` and ``slice_NAME``.
    ``class_names`` has the names of subfolders that are classes.
    """

    files: tuple[Path, ...]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    class_names: Mapping[int, str] = field(default_factory=dict)

    def select_spread(self, most: int | None) -> FileListing:
        """Select ``most`` evenly spread files, as they may be sorted by class."""
        chosen = select_spread(range(len(self.files)), most)
        return replace(
            self,
            files=tuple(self.files[i] for i in chosen),
            arrays={name: values[chosen] for name, values in self.arrays.items()},
        )

    def describe(self) -> str:
        """Return a text that changes with the contents of the files and their targets."""
        arrays = {name: values.tolist() for name, values in self.arrays.items()}
        return f"{compute_files_digest(self.files)} {arrays}"


def select_spread(rows: Sequence[Row], most: int | None) -> list[Row]:
    """Select ``most`` evenly spread rows, as they may be sorted by class."""
    if most is None or len(rows) <= most:
        return list(rows)
    return [rows[i * len(rows) // most] for i in range(most)]


def list_label_files(path: Path) -> tuple[Path, ...]:
    """Return the places of the table of a folder's targets."""
    return path / "labels.csv", path.with_name(f"{path.name}.csv")


def list_files(source: str, path: Path, suffixes: Collection[str]) -> FileListing:
    """List the samples of a folder.

    They are listed in its ``labels.csv`` or a CSV of the folder's name beside it, or lie in a
    subfolder for each class (labeled 0, 1, ... in the order of the names), or have no targets.

    Args:
        source: Name of the folder, for messages.
        path: The folder.
        suffixes: Endings of the files in small letters, such as ``.png``.

    Raises:
        UserError: The CSV is wrong, or names a file that does not exist.
    """
    for table in list_label_files(path):
        if table.is_file():
            return _read_listing(source, path, table)
    classes = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    found = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in _iter_folder(folder, suffixes)
    ]
    if found:
        labels = np.array([label for _, label in found], np.int64)
        return FileListing(
            files=tuple(file for file, _ in found),
            arrays={"label": labels},
            class_names={n: clean_class_name(each.name) for n, each in enumerate(classes)},
        )
    return FileListing(files=tuple(_iter_folder(path, suffixes)))


def has_files(path: Path, suffixes: Collection[str]) -> bool:
    """Return whether a folder or one of its subfolders has files of these endings."""
    folders = (path, *(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")))
    return any(_iter_folder(folder, suffixes) for folder in folders)


def _iter_folder(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return [
        file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    ]


def _read_listing(source: str, path: Path, table: Path) -> FileListing:
    where = str(table)
    header = read_header(table, where) if table.stat().st_size else ()
    if not header:
        return FileListing(files=())
    targets = [name for name in header if name in (*_TARGETS, TEXT)]
    if FILE not in header or len(targets) != 1:
        raise UserError(
            f"{table}: line 1: the columns file and one of label (a number) and text are needed",
            hint="the first line names the columns: file,label",
        )
    (target,) = targets
    labels = [name for name in header if name == GROUP or name.startswith(SLICE)]
    files: list[Path] = []
    values: list[float] = []
    texts: dict[str, list[str]] = {name: [] for name in [TEXT, *labels] if name in header}
    for line, cells in iter_csv_rows(table, where):
        if line == 1:
            continue
        row = dict(zip(header, cells, strict=True))
        files.append(_find_file(source, path, row[FILE], f"{where}: line {line}"))
        if target == TEXT:
            texts[TEXT].append(_check_text(row[TEXT], f"{where}: line {line}"))
        else:
            values.append(_read_value(row[target], target, f"{where}: line {line}"))
        for name in labels:
            texts[name].append(check_label(row[name], f"{where}: line {line}: column {name}"))
    arrays: dict[str, NDArray[Any]] = {n: np.array(t, np.str_) for n, t in texts.items()}
    if target == TEXT:
        arrays["y"] = arrays.pop(TEXT)
    else:
        arrays["label"] = to_narrow_array(values)
    return FileListing(files=tuple(files), arrays=arrays)


def _find_file(source: str, path: Path, name: str, where: str) -> Path:
    file = path / name
    if "\0" in name or not file.is_file():
        raise UserError(f"{where}: no file {name[:200]!r} in {source}")
    return file


def _read_value(cell: str, column: str, where: str) -> float:
    value = read_number(cell)
    if value is None:
        raise UserError(
            f"{where}: the columns file and {column} (a number) are needed, but {cell[:40]!r} is "
            "not a number",
            hint="number the classes 0, 1, ...; texts to be recognized belong in a column text",
        )
    return value


def _check_text(cell: str, where: str) -> str:
    if len(cell) > _LONGEST_TEXT:
        raise UserError(f"{where}: the text is longer than {_LONGEST_TEXT} characters")
    return cell
