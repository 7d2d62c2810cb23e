"""Labeled samples from npz, npy folders, image folders or a function, bound to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.config.project import FileSettings, PreprocessSettings
from edgekit.data.column_rows import check_finite, read_column
from edgekit.data.groups import SEQUENCE, SLICE, SampleGroups, is_group_name, read_groups
from edgekit.data.input_fit import check_fits
from edgekit.data.input_settings import WHOLE, Feeding, RecurrentState
from edgekit.data.lengths import (
    RaggedInput,
    check_ragged_inputs,
    find_input_lengths,
    list_ragged_notes,
)
from edgekit.data.readers import read_table
from edgekit.data.stored_arrays import store_array
from edgekit.data.subsets import select_rows
from edgekit.data.table import SampleReading, Table
from edgekit.data.targets import (
    LABELS,
    TargetUse,
    find_targets,
    has_class_labels,
    is_target_name,
    iter_targets,
)
from edgekit.errors import UserError, did_you_mean
from edgekit.model import Signature, TensorSpec
from edgekit.progress import Tick, ignore_progress
from edgekit_agent.measure.feeds import open_columns
from edgekit_agent.samples import Column, Preprocess, Samples, State


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A split, bound to the inputs of a model.

    ``samples`` holds one column per model input, in the model's order; ``digest`` covers contents
    and preprocessing. ``groups`` has the number of the group of each sample (``None``: each is one
    of its own), ``slices`` the label of each sample by the name of the slice column,
    ``class_names`` the names of classes that the source knows. ``has_text_target`` tells whether
    the main target holds texts. ``lines`` is the file of JSON lines of which each is a sample.
    ``reading`` tells how an application reads a sample.
    """

    source: str
    samples: Samples
    count: int
    digest: str
    notes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = field(default=None, compare=False)
    slices: dict[str, NDArray[np.str_]] = field(default_factory=dict, compare=False)
    class_names: Mapping[int, str] = field(default_factory=dict, compare=False)
    has_text_target: bool = False
    lines: Path | None = None
    reading: SampleReading = field(default_factory=SampleReading, compare=False)

    def first(self, count: int) -> Dataset:
        """Return the first ``count`` samples of the split."""
        count = min(count, self.count)
        return replace(
            self,
            samples=select_rows(self.samples, 0, count),
            count=count,
            groups=None if self.groups is None else self.groups[:count],
            slices={name: labels[:count] for name, labels in self.slices.items()},
        )

    def read_targets(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the targets of each sample by name, cut to their lengths; each call starts again.

        The main target is called ``y``.
        """
        return iter_targets(self.samples)


def open_dataset(
    source: str,
    signature: Signature,
    *,
    folder: Path,
    cache: Path,
    settings: PreprocessSettings | None = None,
    feeding: Feeding | None = None,
    files: FileSettings | None = None,
    targets: TargetUse,
    most: int | None = None,
    tick: Tick = ignore_progress,
) -> Dataset:
    """Read a split and bind its columns to a model's inputs.

    Args:
        source: A ``.npz``, a folder of ``.npy`` or images, or ``module:function``.
        signature: Signature of the model.
        folder: Base of a relative ``source``.
        cache: Folder for unpacked columns.
        settings: Preprocessing of float inputs.
        feeding: Input settings of edgekit.toml. A state without an array in the source is not read:
            whoever runs the samples feeds the model's own output back.
        files: Settings of files that are neither arrays nor images.
        targets: Whether targets are required, may be missing, or are not read.
        most: Largest number of images to read, spread over the whole folder; ``None`` = all.
        tick: Progress callback of image decoding.

    Raises:
        UserError: The source cannot be read, or does not fit the model; names the column.
    """
    feeding = feeding or Feeding()
    fed = feeding.constants.keys() | feeding.states.keys()
    table = read_table(
        source,
        folder=folder,
        cache=cache,
        settings=settings,
        gray=_is_gray(signature),
        size=_find_image_size(signature, settings),
        most=most,
        files=files,
        inputs=[spec for spec in signature.inputs if spec.name not in fed],
        tick=tick,
    )
    preprocess = settings.to_preprocess() if settings else None
    names = {column.name for column in table.columns}
    carried = {name: state for name, state in feeding.states.items() if name not in names}
    elsewhere = carried.keys() | feeding.constants.keys()
    rows = [spec for spec in signature.inputs if spec.name not in elsewhere]
    columns = tuple(_bind(table, spec, rows, signature, feeding) for spec in rows)
    inputs = {spec.name for spec in signature.inputs}
    lengths = _find_lengths(table, columns, inputs)
    ragged = {c.name: lengths[c.name] for c in columns if _is_padded(c, lengths)}
    sequence = _find_sequence_column(table, signature, source) if feeding.states else None
    counted = [*_iter_others(table, columns, inputs, targets), *([sequence] if sequence else [])]
    _check_counts((*columns, *counted), source)
    taken = {*inputs, *(each.column.name for each in lengths.values())}
    truth = find_targets(table, taken, targets, cache)
    groups = SampleGroups() if targets == "none" else read_groups(table, inputs)
    check_ragged_inputs(columns, rows, ragged, preprocess, source)
    for column, spec in zip(columns, rows, strict=True):
        sizes = ragged.get(column.name)
        check_fits(column, spec, preprocess, source, sizes)
        check_finite(column, source, sizes.values if sizes else None)
    used = [*columns, *(each.column for each in lengths.values())]
    told = " ".join(part for part in (table.digest, str(preprocess), feeding.digest) if part)
    told += "".join(f" {name}_length" for name in ragged)
    return Dataset(
        source=source,
        samples=Samples(
            columns,
            truth.main,
            preprocess,
            constants=tuple(store_array(n, v, cache) for n, v in feeding.constants.items()),
            states=tuple(
                State(s.output, _store_initial_row(spec, s, feeding, signature, cache))
                for spec in signature.inputs
                if (s := carried.get(spec.name))
            ),
            sequence=sequence,
            targets=truth.others,
            lengths=tuple(replace(each.column, name=name) for name, each in ragged.items()),
        ),
        count=columns[0].shape[0],
        digest=hashlib.sha256(told.encode()).hexdigest(),
        notes=(
            *_list_notes(columns, rows, preprocess, source),
            *list_ragged_notes(ragged, source),
            *_iter_unused_notes(table, used, signature, feeding),
            *truth.notes,
        ),
        groups=groups.groups,
        slices=groups.slices,
        class_names=table.class_names,
        has_text_target=truth.is_text,
        lines=table.lines,
        reading=table.reading,
    )


def _is_padded(column: Column, lengths: dict[str, RaggedInput]) -> bool:
    return column.name in lengths and lengths[column.name].is_padded(column.shape[1:])


def _find_lengths(
    table: Table, columns: Sequence[Column], inputs: set[str]
) -> dict[str, RaggedInput]:
    """Find the lengths of the rows of inputs, by input."""
    names = {(column.path, column.offset): column.name for column in table.columns}
    fed = {c.name: replace(c, name=names[c.path, c.offset]) for c in columns}
    taken = {*inputs, *(column.name for column in fed.values())}
    arrays = {column.name: column for column in table.columns if column.name not in taken}
    return find_input_lengths(arrays, fed, table.source)


def _iter_others(
    table: Table, columns: Sequence[Column], inputs: set[str], targets: TargetUse
) -> Iterator[Column]:
    """Yield the columns besides the inputs that have a row for each sample."""
    read = {(column.path, column.offset) for column in columns}
    for column in table.columns:
        if column.name in inputs or (column.path, column.offset) in read:
            continue
        wanted = is_group_name(column.name) or is_target_name(column.name)
        if column.name.startswith(SLICE) or (targets != "none" and wanted):
            yield column


def _store_initial_row(
    spec: TensorSpec, state: RecurrentState, feeding: Feeding, signature: Signature, cache: Path
) -> Column:
    row = store_array(spec.name, state.initial, cache)
    return replace(row, shape=(1, *row.shape), axis=feeding.axis(spec, signature))


def _find_sequence_column(table: Table, signature: Signature, source: str) -> Column | None:
    """Find the column of sequence numbers; ``None`` if all rows belong to one sequence."""
    inputs = {spec.name for spec in signature.inputs}
    column = next((c for c in table.columns if c.name == SEQUENCE and c.name not in inputs), None)
    if column is None:
        return None
    if len(column.shape) != 1 or np.dtype(column.dtype).kind not in "iu":
        raise UserError(
            f"{source}: {SEQUENCE}: must be one integer per sample, not {column.dtype} "
            f"{list(column.shape)}",
            hint="give all steps of a sequence the same number, and each sequence another one",
        )
    with open_columns([column]) as opened:
        numbers = opened[SEQUENCE].read(0, column.shape[0])
    starts = numbers[np.flatnonzero(np.diff(numbers, prepend=~numbers[:1]))]
    again, counts = np.unique(starts, return_counts=True)
    if (counts > 1).any():
        raise UserError(
            f"{source}: {SEQUENCE}: the rows of sequence {int(again[counts > 1][0])} are not "
            "contiguous",
            hint="store the steps of a sequence one after the other",
        )
    return column


def count_most_common_label(dataset: Dataset) -> int:
    """Count the samples with the most common label; 0 without labels that are classes."""
    if dataset.samples.label is None or not has_class_labels(dataset.samples):
        return 0
    values = read_column(dataset.samples.label)
    return int(np.unique(values, return_counts=True)[1].max())


def _find_image_size(
    signature: Signature, settings: PreprocessSettings | None
) -> tuple[int, int] | None:
    """Return height and width of the only image input; ``None`` if they are free."""
    shapes = [spec.shape for spec in signature.inputs if len(spec.shape) == 4]
    if len(shapes) != 1:
        return None
    first = settings is not None and settings.layout == "NCHW"
    height, width = shapes[0][2:] if first else shapes[0][1:3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _is_gray(signature: Signature) -> bool:
    """Return whether the model takes images of one channel."""
    shapes = [spec.shape for spec in signature.inputs if len(spec.shape) == 4]
    return len(shapes) == 1 and 1 in (shapes[0][1], shapes[0][3])


def _bind(
    table: Table,
    spec: TensorSpec,
    rows: Sequence[TensorSpec],
    signature: Signature,
    feeding: Feeding,
) -> Column:
    by_name = {c.name: c for c in table.columns}
    name = "x" if spec.name not in by_name and len(rows) == 1 else spec.name
    if name in table.texts:
        length = by_name[name].shape[-1]
        raise UserError(f"{table.source}: {name}: contains <U{length}, not numbers")
    if name in by_name:
        found = replace(by_name[name], name=spec.name)
        return replace(found, axis=_find_sample_axis(found, spec, signature, feeding))
    inputs = [n for n in by_name if not _is_reserved(n)]
    raise UserError(
        f"{table.source}: no array for the model input {spec.name!r}; arrays found: "
        f"{_join_names(inputs)}",
        hint="name each array after its model input; a single input may be called x. "
        f"[model.inputs.{spec.name}] in edgekit.toml can make it a constant (constant = VALUE) or "
        'an output of the previous run (from = "OUTPUT")',
    )


def _find_sample_axis(
    column: Column, spec: TensorSpec, signature: Signature, feeding: Feeding
) -> int:
    """Find the sample axis: the configured one, else by the dimensions of the input and the rows.

    Rows of an input without a free dimension may lack one of its dimensions of size 1.
    """
    axis, row = feeding.axis(spec, signature), column.shape[1:]
    if spec.name in feeding.axes or not all(isinstance(dim, int) for dim in spec.shape):
        return axis
    if row == spec.shape:
        return WHOLE
    ones = [place for place, dim in enumerate(spec.shape) if dim == 1]
    lacking = (p for p in ones if row == (*spec.shape[:p], *spec.shape[p + 1 :]))
    return next(lacking, axis) if axis == WHOLE else axis


def _join_names(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _check_counts(columns: tuple[Column, ...], source: str) -> None:
    counts = {c.name: c.shape[0] for c in columns}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise UserError(f"{source}: arrays differ in their number of samples: {told}")
    if not next(iter(counts.values())):
        raise UserError(f"{source}: has no samples")


def _list_notes(
    columns: tuple[Column, ...],
    rows: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    source: str,
) -> list[str]:
    return [
        f"{source}: {column.name} is {column.dtype} and is fed to a {spec.dtype} input without "
        "scaling; if the model expects scaled values, set [data.preprocess] mean and std"
        for column, spec in zip(columns, rows, strict=True)
        if not is_scaled(preprocess) and column.dtype == "uint8" and spec.dtype.startswith("float")
    ]


def _iter_unused_notes(
    table: Table, columns: Sequence[Column], signature: Signature, feeding: Feeding
) -> Iterator[str]:
    """Yield a note on each array that feeds no input and has no other use."""
    read = {(column.path, column.offset) for column in columns}
    free = [n for n in (spec.name for spec in signature.inputs) if n not in feeding.constants]
    for column in table.columns:
        if _is_reserved(column.name) or (column.path, column.offset) in read:
            continue
        if column.name in feeding.constants:
            yield (
                f"{table.source}: the array {column.name} is not used, as edgekit.toml makes "
                "this input a constant"
            )
            continue
        near = did_you_mean(column.name, [*free, *LABELS, SEQUENCE])
        yield f"{table.source}: the array {column.name} matches no input and is not used{near}"


def _is_reserved(name: str) -> bool:
    """Return whether an array of this name has a meaning other than feeding an input."""
    return is_target_name(name) or is_group_name(name)


def is_scaled(preprocess: Preprocess | None) -> bool:
    """Return whether preprocessing changes values."""
    if preprocess is None:
        return False
    return (preprocess.scale, set(preprocess.mean), set(preprocess.std)) != (1.0, {0.0}, {1.0})
