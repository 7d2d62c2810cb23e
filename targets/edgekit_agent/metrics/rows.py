"""Rows of statistics as text, for messages between host and agent."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import TYPE_CHECKING, Iterator, List, Sequence

import numpy as np

from edgekit_agent.worker_results import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Most values of the rows of a sample; more would take more than 64 MiB of memory.
MOST_VALUES = 6_000_000
# Values of one piece of a row; a multiple of 3, so that its text in base64 has no padding.
PIECE_VALUES = 3 << 16
# Largest number of pieces of the rows of a sample.
MOST_PIECES = 32


def encode_rows(metric: str, rows: Sequence[NDArray[np.float64]]) -> Statistics:
    """Encode the rows of consecutive samples."""
    lengths = np.array([row.size for row in rows], "<u4")
    values = rows[0] if len(rows) == 1 else np.concatenate([np.zeros(0), *rows])
    equal = not rows or bool((lengths == lengths[0]).all() and lengths[0])
    return Statistics(
        metric,
        _to_text(np.ascontiguousarray(values, "<f8")),
        "" if equal else _to_text(lengths),
    )


def iter_pieces(metric: str, row: NDArray[np.float64]) -> Iterator[Statistics]:
    """Yield the pieces of a row of very many values, without its rest."""
    for start in range(0, _find_rest(row), PIECE_VALUES):
        values = np.ascontiguousarray(row[start : start + PIECE_VALUES], "<f8")
        yield Statistics(metric, _to_text(values))


def get_rest(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values of a row that follow its pieces; of one without pieces, all."""
    return row[_find_rest(row) :]


def _find_rest(row: NDArray[np.float64]) -> int:
    """Return the number of values in pieces; at least one other remains, if there is any."""
    return max(row.size - 1, 0) // PIECE_VALUES * PIECE_VALUES


def join_pieces(pieces: Sequence[Statistics], rest: Statistics) -> Statistics:
    """Return the statistics of one sample, whose row was sent in pieces.

    Raises:
        ValueError: the row is not valid.
    """
    joined = replace(rest, values="".join(each.values for each in (*pieces, rest)), lengths="")
    decode_rows(joined, 1)
    return joined


def decode_rows(statistics: Statistics, n: int) -> List[NDArray[np.float64]]:
    """Decode the rows of ``n`` samples.

    Raises:
        ValueError: they are not such rows, or a value is not finite.
    """
    values = np.frombuffer(_to_bytes(statistics.values, 8), "<f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    if statistics.lengths:
        lengths = np.frombuffer(_to_bytes(statistics.lengths, 4), "<u4").astype(np.int64)
        if lengths.size != n or int(lengths.sum()) != values.size:
            raise ValueError(f"{lengths.size} rows of {int(lengths.sum())} values, not {n} samples")
        return np.split(values, np.cumsum(lengths)[:-1]) if n else []
    # Equal rows have a value at least, so that n is no larger than the text.
    if values.size % n or values.size < n if n > 0 else n or values.size:
        raise ValueError(f"{values.size} values are not equal rows of {n} samples")
    return list(values.reshape(n, -1)) if n else []


def _to_text(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.data).decode("ascii")


def _to_bytes(text: str, size: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from error
    if len(data) % size:
        raise ValueError(f"{len(data)} bytes are not numbers of {size} bytes")
    return data
