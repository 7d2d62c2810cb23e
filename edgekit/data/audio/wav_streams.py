"""Long ``.wav`` files as streams of steps, for models with states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bounded_reading import read_regular
from edgekit.data.audio.wav_files import read_wav_format
from edgekit.data.cached_arrays import compute_files_digest
from edgekit.data.csv_rows import read_number, to_narrow_array
from edgekit.data.groups import SEQUENCE
from edgekit.data.listed_files import FileListing
from edgekit.errors import UserError, first_line

_LABELS = ".txt"
_MOST_BYTES = 1 << 24
_TARGETS = ("label", "y")


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Arrays of the steps of all files besides their values, and a digest of what they hold."""

    arrays: Mapping[str, NDArray[Any]]
    digest: str


def list_streams(listing: FileListing, *, window: int, step: int) -> Streams:
    """List the steps of files: each file is a sequence, and its targets are those of its steps.

    Args:
        listing: The files. ``NAME.txt`` next to each ``NAME.wav`` has a number for each step; else
            the targets of the file are those of all its steps.
        window: Number of values that the model gets in each step.
        step: Number of new values in each step.

    Raises:
        UserError: A file is shorter than a step, or its numbers are wrong or missing.
    """
    counts = [_count_steps(file, step) for file in listing.files]
    arrays = {name: np.repeat(values, counts, axis=0) for name, values in listing.arrays.items()}
    beside = [file.with_suffix(_LABELS) for file in listing.files]
    found = [place for place in beside if place.is_file()]
    if found:
        arrays = {name: values for name, values in arrays.items() if name not in _TARGETS}
        numbers = [_read_numbers(*each) for each in zip(beside, counts, strict=True)]
        arrays["y"] = to_narrow_array([number for each in numbers for number in each])
    arrays[SEQUENCE] = np.repeat(np.arange(len(counts)), counts)
    digest = f"{listing.describe()} {compute_files_digest(found)} {window} {step}"
    return Streams(arrays=arrays, digest=digest)


def _count_steps(file: Path, step: int) -> int:
    count = read_wav_format(file).count
    if count < step:
        raise UserError(f"{file}: {count} values are fewer than a step of {step}")
    return count // step


def _read_numbers(place: Path, count: int) -> Sequence[float]:
    """Read a number for each step of a file; one more, for an incomplete last step, is left out."""
    try:
        cells = read_regular(place, _MOST_BYTES).decode().split()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place}: cannot be read: {first_line(error)}",
            hint="each .wav file needs a .txt file of its name, with a number for each step",
        ) from error
    if len(cells) not in (count, count + 1):
        raise UserError(f"{place}: has {len(cells)} numbers, but the file has {count} steps")
    values = [read_number(cell) for cell in cells[:count]]
    numbers = [value for value in values if value is not None]
    if len(numbers) < count:
        wrong = values.index(None)
        raise UserError(f"{place}: number {wrong + 1}: {cells[wrong][:40]!r} is not a number")
    return numbers
