"""Rows of CSV files, read line by line, and numbers and texts in their cells."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError

LONGEST_TEXT = 200
# Larger integers are not exact as float64.
LARGEST_INTEGER = 1 << 53
_SEPARATORS = ",;\t"
_LONGEST_LINE = 1 << 20
_NO_VALUES = ("", "nan", "na", "null", "none", "inf", "-inf")


def read_header(path: Path, source: str) -> tuple[str, ...]:
    """Read the names of the columns.

    Raises:
        UserError: The file has no header, or a name occurs twice.
    """
    _, names = next(iter_csv_rows(path, source), (1, []))
    header = tuple(name.strip() for name in names)
    if not any(header):
        raise UserError(f"{source}: has no header", hint="the first line names the columns")
    for place, name in enumerate(header):
        if not name or name in header[:place]:
            told = f"a second column {name}" if name else "has no name"
            raise UserError(f"{source}: column {place + 1}: {told}")
    return header


def iter_csv_rows(path: Path, source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row, the header included.

    Cells are separated by the character that the header has most of: comma, semicolon or tab.

    Raises:
        UserError: A row has another number of cells than the header, or is not CSV.
    """
    with _open_text(path) as file:
        first = next(_iter_lines(file, source), "")
    separator = max(_SEPARATORS, key=first.count)
    with _open_text(path) as file:
        reader = csv.reader(_iter_lines(file, source), delimiter=separator)
        size: int | None = None
        try:
            for row in reader:
                size = len(row) if size is None else size
                if not row and size:
                    continue
                if len(row) != size:
                    raise UserError(
                        f"{source}: line {reader.line_num}: has {len(row)} cells, the header {size}"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise UserError(f"{source}: line {reader.line_num}: not CSV: {error}") from error


def read_number(cell: str) -> float | None:
    """Return the number of a cell; ``None`` if it is no finite number."""
    try:
        value = float(cell)
    except ValueError:
        return None
    # Python reads 1_000 as a number; CSV files mean something else.
    return value if math.isfinite(value) and "_" not in cell else None


def refuse_cell(cell: str, where: str, hint: str) -> None:
    """Raise the error of a cell that is no number."""
    text = cell.strip()
    if text.lower() in _NO_VALUES:
        raise UserError(f"{where}: no value ({text or 'empty'})", hint="fill or remove it")
    raise UserError(f"{where}: {text[:40]!r} is not a number", hint=hint)


def check_label(cell: str, where: str) -> str:
    """Return the text of a group or slice.

    Raises:
        UserError: It is too long.
    """
    text = cell.strip()
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{where}: a text is longer than {LONGEST_TEXT} characters")
    return text


def to_narrow_array(values: Sequence[float]) -> NDArray[np.generic]:
    """Convert numbers to an array: of integers if all are."""
    found = np.array(values, np.float64)
    is_whole = (np.abs(found) <= LARGEST_INTEGER) & (np.rint(found) == found)
    return found.astype(np.int64) if is_whole.all() else found


def _open_text(path: Path) -> TextIO:
    # Spreadsheets begin the file with a byte order mark.
    return path.open(newline="", encoding="utf-8-sig")


def _iter_lines(file: TextIO, source: str) -> Iterator[str]:
    number = 1
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise UserError(f"{source}: line {number}: is longer than {_LONGEST_LINE >> 20} MiB")
        yield line
        number += 1
