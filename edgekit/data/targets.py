"""Targets of samples: the main one, further ones, and the lengths of those that are padded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.data.column_rows import check_finite, compute_text_lengths, iter_chunks
from edgekit.data.lengths import iter_own_rows, read_lengths
from edgekit.data.stored_arrays import store_array
from edgekit.data.table import Table
from edgekit.errors import UserError
from edgekit_agent.measure.feeds import prepare_rows
from edgekit_agent.metrics.ragged import cut_ragged, get_length_name
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import TARGET, Column, Samples

LABELS = ("label", "y", "labels")
PREFIX = "y_"

TargetUse = Literal["required", "optional", "none"]


@dataclass(frozen=True, kw_only=True)
class TargetColumns:
    """Column of the main target, and columns of further ones under their names.

    ``is_text`` tells whether the main target holds texts.
    """

    main: Column | None = None
    others: tuple[Column, ...] = ()
    is_text: bool = False
    notes: tuple[str, ...] = ()


def is_target_name(name: str) -> bool:
    """Return whether an array of this name holds targets, unless it feeds an input."""
    return name in LABELS or name.startswith(PREFIX)


def find_targets(
    table: Table, inputs: Collection[str], use: TargetUse, cache: Path
) -> TargetColumns:
    """Find the targets of a table: ``y`` (or ``label``, ``labels``), ``y_NAME``, and their lengths.

    Args:
        table: The columns of the source.
        inputs: Names of the model's inputs, which are no targets.
        use: Whether targets are required, may be missing, or are not read.
        cache: Folder for the lengths of texts.

    Raises:
        UserError: There are no targets although they are required, or one cannot be used.
    """
    if use == "none":
        return TargetColumns()
    by_name = {c.name: c for c in table.columns if c.name not in inputs}
    mains = [name for name in LABELS if name in by_name]
    found = {TARGET: by_name[mains[0]]} if mains else {}
    for name, column in by_name.items():
        if name.startswith(PREFIX):
            found[_get_target_name(name, has_main=bool(mains), source=table.source)] = column
    if not found and use == "required":
        raise UserError(
            f"{table.source}: no labels",
            hint="add an array 'label' with the class of each sample, or 'y' with its target",
        )
    found |= _measure_texts(table, found, cache)
    for target, column in found.items():
        lengths = found.get(get_length_name(target))
        values = None if lengths is None else read_lengths(lengths, column, table.source)
        check_finite(column, table.source, values)
    main = found.pop(TARGET, None)
    return TargetColumns(
        main=main,
        is_text=main is not None and main.name in table.texts,
        others=tuple(replace(column, name=target) for target, column in found.items()),
        notes=tuple(
            f"{table.source}: the array {name} is not used, as {mains[0]} is the target"
            for name in mains[1:]
        ),
    )


def _get_target_name(name: str, *, has_main: bool, source: str) -> str:
    """Return the name of the target in an array ``y_NAME``; ``y_length`` keeps its name."""
    if name == get_length_name(TARGET):
        if has_main:
            return name
        raise UserError(f"{source}: {name}: there is no array y that it is the length of")
    target = name.removeprefix(PREFIX)
    if target in ("", TARGET, get_length_name(TARGET)):
        raise UserError(f"{source}: {name}: a further target needs another name", hint="y_NAME")
    return target


def _measure_texts(table: Table, found: Mapping[str, Column], cache: Path) -> dict[str, Column]:
    """Return the columns of the lengths of targets that are text, by name."""
    lengths: dict[str, Column] = {}
    for target, column in found.items():
        if column.name not in table.texts:
            continue
        where, name = f"{table.source}: {column.name}", get_length_name(target)
        if len(column.shape) != 2:
            raise UserError(f"{where}: must be one text per sample")
        if name in found:
            raise UserError(
                f"{where}: is text, which has a length of its own",
                hint=f"remove the array {found[name].name}",
            )
        lengths[name] = store_array(name, compute_text_lengths(column, table.source), cache)
    return lengths


def has_class_labels(samples: Samples) -> bool:
    """Return whether the main target is one integer per sample."""
    label = samples.label
    if label is None or np.dtype(label.dtype).kind not in "iub":
        return False
    return all(size == 1 for size in label.shape[1:])


def iter_targets(samples: Samples) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the targets of each sample by name, cut to their lengths; reads a chunk at a time."""
    columns = [replace(column, name=name) for name, column in samples.get_targets().items()]
    for _, chunk in iter_chunks(columns):
        for row in range(len(chunk[columns[0].name])):
            yield cut_ragged({name: np.asarray(rows[row]) for name, rows in chunk.items()})


def iter_targets_and_inputs(samples: Samples, prefix: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the targets of each sample, and its inputs under their names with a prefix."""
    yield from (
        {**targets, **{prefix + name: value for name, value in inputs.items()}}
        for targets, inputs in zip(iter_targets(samples), _iter_inputs(samples), strict=True)
    )


def _iter_inputs(samples: Samples) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the inputs of each sample by name, preprocessed, at the sample's own size."""
    for rows in iter_own_rows(samples.columns, samples):
        yield {name: _preprocess(name, row[np.newaxis], samples)[0] for name, row in rows.items()}


def _preprocess(name: str, rows: NDArray[Any], samples: Samples) -> NDArray[Any]:
    dtype = rows.dtype.name if samples.preprocess is None else "float32"
    return prepare_rows(rows, Tensor(name, dtype, ("?",) * rows.ndim), samples.preprocess)
