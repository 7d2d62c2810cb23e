"""Lengths of rows that are padded to one size: ``NAME_length`` beside the array ``NAME``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.column_rows import iter_chunks, read_column
from edgekit.errors import UserError
from edgekit.model import TensorSpec
from edgekit_agent.metrics.ragged import cut_padding, get_length_name
from edgekit_agent.samples import Column, Preprocess, Samples


@dataclass(frozen=True, kw_only=True)
class RaggedInput:
    """Lengths of the samples of an input: the array that holds them, and its values [n, axes]."""

    column: Column
    values: NDArray[Any]

    def is_padded(self, row: Sequence[int]) -> bool:
        """Return whether a sample is smaller than the rows.

        Args:
            row: Shape of the padded rows.
        """
        return any(low < size for (low, _), size in zip(self.list_sizes(row), row, strict=True))

    def list_sizes(self, row: Sequence[int]) -> list[tuple[int, int]]:
        """Return the smallest and largest size of each axis of a row.

        Args:
            row: Shape of the padded rows.
        """
        low, high = self.values.min(axis=0).tolist(), self.values.max(axis=0).tolist()
        rest = row[len(low) :]
        return list(zip([*low, *rest], [*high, *rest], strict=True))


def read_lengths(
    lengths: Column, column: Column, source: str, *, least: int = 0
) -> NDArray[np.integer[Any]]:
    """Read and check the lengths of a padded array, one row for each sample.

    Args:
        lengths: An integer for each sample, or one for each of several first axes.
        column: The padded array.
        source: Name of the source, for messages.
        least: Smallest length.

    Raises:
        UserError: They are not integers, not one for each sample, or not within the array.
    """
    where, axes = f"{source}: {lengths.name}", column.shape[1:]
    if not axes:
        raise UserError(f"{where}: {column.name} has one value per sample and no length")
    count = lengths.shape[1] if len(lengths.shape) > 1 else 1
    if np.dtype(lengths.dtype).kind not in "iu" or len(lengths.shape) > 2:
        raise UserError(
            f"{where}: must be one integer per sample of {column.name}, or one for each of its "
            f"first axes, not {lengths.dtype} {list(lengths.shape)}"
        )
    if lengths.shape[0] != column.shape[0] or not 1 <= count <= len(axes):
        raise UserError(
            f"{where}: must be one integer per sample of {column.name}, or one for each of its "
            f"first axes: its shape is {list(lengths.shape)}, that of {column.name} "
            f"{list(column.shape)}"
        )
    values = read_column(lengths).reshape(lengths.shape[0], count)
    sizes = np.array(axes[:count])
    wrong = (values < least) | (values > sizes)
    if wrong.any():
        number, axis = (int(place) for place in np.argwhere(wrong)[0])
        told = f"axis {axis + 1} of {column.name}" if count > 1 else column.name
        several = "give a length for each of several axes as an array [samples, axes]"
        raise UserError(
            f"{where}: {int(values[number, axis])} of sample {number} must be from {least} to "
            f"{axes[axis]}, the size of {told}",
            hint=several if least and count < len(axes) else "",
        )
    return values


def find_input_lengths(
    arrays: Mapping[str, Column], inputs: Mapping[str, Column], source: str
) -> dict[str, RaggedInput]:
    """Find the lengths of inputs whose rows are padded, by input.

    Args:
        arrays: All arrays of the source that feed no input, by name.
        inputs: The column of each input, under the name of its array, by input.
        source: Name of the source, for messages.

    Raises:
        UserError: Lengths are wrong.
    """
    found = {}
    for name, column in inputs.items():
        lengths = arrays.get(get_length_name(column.name))
        if lengths is not None and len(column.shape) > 1:
            values = read_lengths(lengths, column, source, least=1)
            found[name] = RaggedInput(column=lengths, values=values)
    return found


def map_row_axes(spec: TensorSpec, column: Column, preprocess: Preprocess | None) -> list[int]:
    """Return the axis of an input for each axis of the rows that feed it."""
    axes = [axis for axis in range(len(spec.shape)) if axis != column.axis]
    is_moved = preprocess is not None and preprocess.channels_first
    if is_moved and np.dtype(spec.dtype).kind == "f" and len(axes) == len(column.shape[1:]) == 3:
        return [axes[1], axes[2], axes[0]]
    return axes


def list_input_sizes(
    spec: TensorSpec, column: Column, samples: Samples
) -> dict[int, tuple[int, int]]:
    """Return the smallest and largest size of samples along each axis of an input but the batch."""
    lengths = next((c for c in samples.lengths if c.name == column.name), None)
    sizes = [(size, size) for size in column.shape[1:]]
    if lengths is not None:
        values = read_lengths(lengths, column, column.name, least=1)
        sizes = RaggedInput(column=lengths, values=values).list_sizes(column.shape[1:])
    return dict(zip(map_row_axes(spec, column, samples.preprocess), sizes, strict=False))


def check_ragged_inputs(
    columns: Sequence[Column],
    specs: Sequence[TensorSpec],
    ragged: Mapping[str, RaggedInput],
    preprocess: Preprocess | None,
    source: str,
) -> None:
    """Check that a model takes samples of their own sizes.

    Args:
        columns: The column of each input.
        specs: The inputs.
        ragged: Lengths by input.
        preprocess: Preprocessing of float inputs.
        source: Name of the source, for messages.

    Raises:
        UserError: The model has one size along an axis where samples differ, or two inputs differ
            in a size that the model names alike.
    """
    known: dict[str, tuple[str, NDArray[Any]]] = {}
    for column, spec in zip(columns, specs, strict=True):
        axes = map_row_axes(spec, column, preprocess)
        for place, axis in enumerate(axes[: len(column.shape) - 1]):
            sizes = _list_own_sizes(column, ragged.get(column.name), place)
            if isinstance(spec.shape[axis], int):
                _check_one_size(sizes, ragged.get(column.name), spec, axis, source)
                continue
            name = spec.dimension(axis)
            other, wanted = known.setdefault(name, (column.name, sizes))
            differing = sizes != wanted
            if differing.any() and not ragged.keys().isdisjoint((other, column.name)):
                number = int(np.argmax(differing))
                raise UserError(
                    f"{source}: {name} of sample {number} is {wanted[number]} in {other} and "
                    f"{sizes[number]} in {column.name}",
                    hint=f"give the lengths of both, {get_length_name(other)} and "
                    f"{get_length_name(column.name)}",
                )


def _list_own_sizes(column: Column, ragged: RaggedInput | None, place: int) -> NDArray[Any]:
    """Return the size of each sample along an axis of its row."""
    if ragged is not None and place < ragged.values.shape[1]:
        return ragged.values[:, place]
    return np.full(column.shape[0], column.shape[1 + place])


def _check_one_size(
    sizes: NDArray[Any], ragged: RaggedInput | None, spec: TensorSpec, axis: int, source: str
) -> None:
    """Check that samples have the same size along an axis that the model does not leave free."""
    low, high = int(sizes.min()), int(sizes.max())
    if ragged is None or low == high:
        return
    raise UserError(
        f"{source}: {ragged.column.name}: samples have sizes from {low} to {high} where the model "
        f"input {spec} takes {spec.shape[axis]}",
        hint=f"remove the array {ragged.column.name} if the model expects padded samples; if the "
        "samples differ along another axis, give a length for each axis, as an array [samples, "
        "axes]",
    )


def list_ragged_notes(ragged: Mapping[str, RaggedInput], source: str) -> list[str]:
    """Return a note for each input whose samples are run at their own sizes."""
    notes = []
    for name, each in ragged.items():
        ends = (each.values.min(axis=0), each.values.max(axis=0))
        told = " to ".join(" x ".join(map(str, end.tolist())) for end in ends)
        notes.append(f"{source}: {name}: each sample is run at its own size ({told})")
    return notes


def pad_row(row: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Pad the end of each axis of a row with zeros, so that it has a size."""
    padded = np.zeros(tuple(size), row.dtype)
    padded[tuple(slice(own) for own in row.shape)] = row
    return padded


def iter_own_rows(columns: Sequence[Column], samples: Samples) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the rows of each sample in some columns of inputs, cut to the size of the sample.

    Args:
        columns: The columns.
        samples: The samples, for their lengths.
    """
    lengths = {c.name: replace(c, name=f"the lengths of {c.name}") for c in samples.lengths}
    kept = {c.name: lengths[c.name] for c in columns if c.name in lengths}
    for _, chunk in iter_chunks([*columns, *kept.values()]):
        for place in range(len(chunk[columns[0].name])):
            rows = {column.name: chunk[column.name][place] for column in columns}
            for name, column in kept.items():
                rows[name] = cut_padding(name, rows[name], chunk[column.name][place], least=1)
            yield rows
