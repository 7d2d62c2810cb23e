"""Inputs of golden samples: read from samples, and made coarse so that they are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Dataset
from edgekit_agent.measure.feeds import find_batch_size, iter_batches
from edgekit_agent.measure.health import Axes
from edgekit_agent.runtimes import LoadedModel

Arrays = Mapping[str, NDArray[Any]]

# Sign, exponent and the upper three bits of the fraction of a float16.
_UPPER_DIGITS = np.uint16(0xFF80)
_HALF_MOST, _HALF_LEAST = 3e4, 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class InputRows:
    """Samples of a model: the rows of each input, the constants, and the axis of the samples."""

    rows: Arrays
    constants: Arrays
    axes: Axes

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.rows.values())))


def read_input_rows(loaded: LoadedModel, split: Dataset, *, sizes_of: int) -> InputRows:
    """Read samples with the sample axis first.

    Samples of different sizes are cut to the size of the smallest of the first ones; samples that
    are shorter somewhere are left out.

    Args:
        loaded: The model.
        split: The samples.
        sizes_of: Number of first samples among which the smallest is searched.
    """
    samples = split.samples
    batch = find_batch_size(samples, loaded.inputs) or 1
    axes = {column.name: column.axis for column in samples.columns}
    parts: list[Arrays] = []
    constants: dict[str, NDArray[Any]] = {}
    for part in iter_batches(samples, loaded.inputs, batch):
        rows: dict[str, NDArray[Any]] = {}
        for name, values in part.inputs.items():
            if name not in axes:
                constants[name] = values
                continue
            first = values[None] if axes[name] < 0 else np.moveaxis(values, axes[name], 0)
            rows[name] = first[: part.rows]
        parts.append(rows)
    if samples.lengths:
        parts = _cut_to_smallest(parts, sizes_of)
    joined = {name: np.concatenate([each[name] for each in parts]) for name in axes}
    return InputRows(rows=joined, constants=constants, axes={**axes})


def _cut_to_smallest(parts: Sequence[Arrays], first: int) -> list[Arrays]:
    """Cut samples to the smallest of the first ones; leave out those that are shorter somewhere."""
    smallest = min(parts[:first], key=lambda part: sum(values.size for values in part.values()))
    sizes = {name: values.shape for name, values in smallest.items()}
    cuts = {name: tuple(slice(size) for size in shape) for name, shape in sizes.items()}
    cut = [{name: values[cuts[name]] for name, values in part.items()} for part in parts]
    return [part for part in cut if all(part[name].shape == sizes[name] for name in sizes)]


def fill_blocks(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Make samples constant in blocks, with at most a given number of blocks each."""
    shape = values.shape[1:]
    blocks = [1] * len(shape)
    counts = list(shape)
    while np.prod(counts, dtype=np.int64) > most:
        widest = int(np.argmax(counts))
        blocks[widest] *= 2
        counts[widest] = -(-shape[widest] // blocks[widest])
    for axis, (block, size) in enumerate(zip(blocks, shape, strict=True), 1):
        if block > 1:
            first = np.arange(size) // block * block
            values = values.take(first, axis=axis)
    return _cut_digits(values) if max(blocks, default=1) > 1 else values


def _cut_digits(values: NDArray[Any]) -> NDArray[Any]:
    """Clear the lower digits of float16 values, so that they compress well."""
    if values.dtype != np.float16:
        return values
    return (values.view(np.uint16) & _UPPER_DIGITS).view(np.float16)


def round_to_half(values: NDArray[Any]) -> NDArray[Any]:
    """Round floats to float16 if their range allows it."""
    if values.dtype.kind != "f" or values.dtype.itemsize <= np.dtype(np.float16).itemsize:
        return values
    finite = np.isfinite(values)
    size = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    return values.astype(np.float16) if _HALF_LEAST < size < _HALF_MOST else values
