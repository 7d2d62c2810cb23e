"""Rows of columns: read in chunks of bounded size, checked, or decoded to text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError
from edgekit_agent.measure.feeds import open_columns
from edgekit_agent.samples import Column

_CHUNK_BYTES = 1 << 20
_MOST_ROWS = 4096
_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def iter_chunks(columns: Sequence[Column]) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Yield the rows of columns in chunks of about a megabyte, with the number of the first row."""
    if not columns:
        return
    row_bytes = sum(np.dtype(c.dtype).itemsize * math.prod(c.shape[1:]) for c in columns)
    step = max(1, min(_MOST_ROWS, _CHUNK_BYTES // max(1, row_bytes)))
    total = columns[0].shape[0]
    with open_columns(columns) as opened:
        for start in range(0, total, step):
            count = min(step, total - start)
            yield start, {name: rows.read(start, count) for name, rows in opened.items()}


def read_column(column: Column) -> NDArray[Any]:
    """Read all rows of a column."""
    with open_columns([column]) as opened:
        return opened[column.name].read(0, column.shape[0])


def check_finite(column: Column, source: str, lengths: NDArray[Any] | None = None) -> None:
    """Refuse NaN and infinite values.

    Args:
        column: The column.
        source: Name of the source, for messages.
        lengths: Sizes [samples, axes] of each row along its first axes, for a padded column.
    """
    if np.dtype(column.dtype).kind != "f":
        return
    for start, chunk in iter_chunks([column]):
        rows = chunk[column.name]
        good = np.isfinite(rows)
        if lengths is not None:
            good |= _find_padding(rows, lengths[start : start + len(rows)])
        good = good.reshape(len(rows), -1).all(axis=1)
        if not good.all():
            raise UserError(
                f"{source}: {column.name}: sample {start + int(np.argmin(good))} has NaN or "
                "infinite values",
                hint="remove or fix these samples",
            )


def _find_padding(rows: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where rows are padding, in a shape that broadcasts to theirs."""
    found = np.zeros((1,) * rows.ndim, np.bool_)
    for axis, sizes in enumerate(lengths.T, start=1):
        places = np.arange(rows.shape[axis]).reshape(-1, *[1] * (rows.ndim - axis - 1))
        found = found | (places >= sizes.reshape(-1, *[1] * (rows.ndim - 1)))
    return found


def compute_text_lengths(column: Column, source: str) -> NDArray[np.int32]:
    """Compute the number of characters of each text in a column of code points.

    Raises:
        UserError: A row is not text.
    """
    found = [np.zeros(0, np.int32)]
    places = np.arange(1, column.shape[1] + 1, dtype=np.int32)
    for start, chunk in iter_chunks([column]):
        rows = chunk[column.name]
        _check_code_points(rows, start, f"{source}: {column.name}")
        found.append(np.where(rows != 0, places, 0).max(axis=1, initial=0).astype(np.int32))
    return np.concatenate(found)


def read_texts(column: Column, source: str) -> NDArray[np.str_]:
    """Read the texts of a column of code points.

    Raises:
        UserError: A row is not text.
    """
    rows = read_column(column).reshape(column.shape[0], column.shape[-1])
    _check_code_points(rows, 0, f"{source}: {column.name}")
    if not rows.size:
        return np.zeros(len(rows), "<U1")
    texts: NDArray[np.str_] = rows.view(f"<U{rows.shape[1]}")[:, 0]
    return texts


def _check_code_points(rows: NDArray[Any], start: int, where: str) -> None:
    low, high = _SURROGATES
    wrong = (rows < 0) | (rows > _LAST_CODE_POINT) | ((rows >= low) & (rows <= high))
    if wrong.any():
        number = start + int(np.flatnonzero(wrong.any(axis=1))[0])
        raise UserError(f"{where}: sample {number} is not text: it has invalid code points")
