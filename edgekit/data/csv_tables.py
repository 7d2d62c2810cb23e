"""CSV files: a row for each sample, columns for features, targets, groups and slices."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data.cached_arrays import Locate, build_cached_table, open_rows, save_array
from edgekit.data.csv_rows import (
    LARGEST_INTEGER,
    check_label,
    iter_csv_rows,
    read_header,
    read_number,
    refuse_cell,
    to_narrow_array,
)
from edgekit.data.groups import SEQUENCE, is_group_name
from edgekit.data.table import SampleReading, Table
from edgekit.data.targets import LABELS, is_target_name
from edgekit.errors import UserError
from edgekit.model import TensorSpec
from edgekit_agent.files import sha256_of
from edgekit_agent.preprocess.settings import RowFields

_TARGET = "target"
_MOST_COLUMNS = 1 << 16
_CHUNK_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class _Input:
    """An input, and the columns that its rows come from."""

    columns: tuple[int, ...]
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Header of a file, and the use of its columns.

    Attributes:
        header: Names of the columns.
        inputs: Inputs of the model by name.
        numbers: Columns of targets and of sequence numbers by the name of their array.
        texts: Columns of groups and slices by name.
    """

    header: tuple[str, ...]
    inputs: dict[str, _Input] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Some rows of a file, with their line numbers."""

    source: str
    header: tuple[str, ...]
    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def locate(self, row: int, column: int) -> str:
        """Return the place of a cell, for messages."""
        return f"{self.source}: line {self.lines[row]}: column {self.header[column]}"


def read_csv(source: str, path: Path, cache: Path, inputs: Sequence[TensorSpec]) -> Table:
    """Read a CSV file, whose first line has the names of the columns.

    A column with the name of an input feeds it. All others are features of the one input that has
    no column, in their order; except ``y``, ``label`` or ``target``, ``y_NAME``, ``sequence``,
    ``group`` and ``slice_NAME``.

    Args:
        source: Name of the source, for messages.
        path: The file.
        cache: Folder for the arrays.
        inputs: Inputs of the model that the samples feed.

    Raises:
        UserError: The file is no such table; names line and column.
    """
    layout = _read_layout(source, path, inputs)

    def fill(locate: Locate) -> None:
        _write_arrays(source, path, layout, locate)

    names = [*layout.inputs, *layout.numbers, *layout.texts]
    facts = f"csv 1 {sha256_of(str(path))} {layout}"
    fields = tuple(
        RowFields(name, tuple(layout.header[place] for place in use.columns))
        for name, use in layout.inputs.items()
    )
    table = build_cached_table(source, facts, names, fill, cache)
    return replace(table, reading=SampleReading(fields=fields))


def _read_layout(source: str, path: Path, inputs: Sequence[TensorSpec]) -> _Layout:
    header = read_header(path, source)
    _check_header(source, header)
    specs = {spec.name: spec for spec in inputs}
    named: dict[str, _Input] = {}
    numbers: dict[str, int] = {}
    texts: dict[str, int] = {}
    features: list[int] = []
    for place, name in enumerate(header):
        if name in specs:
            named[name] = _describe_input(source, specs[name], (place,))
        elif is_target_name(name) or name in (_TARGET, SEQUENCE):
            numbers["y" if name == _TARGET else name] = place
        elif is_group_name(name):
            texts[name] = place
        else:
            features.append(place)
    if features:
        rest = [spec for spec in inputs if spec.name not in named]
        if len(rest) > 1 or (inputs and not rest):
            _refuse_features(source, [header[f] for f in features], rest)
        spec = rest[0] if rest else TensorSpec(name="x", dtype="float32", shape=("N", None))
        named[spec.name] = _describe_input(source, spec, tuple(features), header)
    return _Layout(header=header, inputs=named, numbers=numbers, texts=texts)


def _refuse_features(source: str, features: list[str], rest: list[TensorSpec]) -> None:
    told = ", ".join(features[:5]) + (", ..." if len(features) > 5 else "")
    if not rest:
        raise UserError(
            f"{source}: the columns {told} feed no input, as each input has a column of its own",
            hint="remove these columns",
        )
    raise UserError(
        f"{source}: the columns {told} match no input, and several inputs have no column: "
        f"{', '.join(spec.name for spec in rest)}",
        hint="name the columns after the inputs, or write an .npz",
    )


def _check_header(source: str, header: tuple[str, ...]) -> None:
    if len(header) > _MOST_COLUMNS:
        raise UserError(f"{source}: has more than {_MOST_COLUMNS} columns")
    if all(read_number(name) is not None for name in header):
        raise UserError(
            f"{source}: the first line has numbers, not the names of columns",
            hint="add a header, such as x1,x2,y",
        )
    targets = [name for name in header if name in (*LABELS, _TARGET)]
    if len(targets) > 1:
        raise UserError(
            f"{source}: the columns {' and '.join(targets)} are both the target",
            hint="call further targets y_NAME",
        )


def _describe_input(
    source: str, spec: TensorSpec, columns: tuple[int, ...], header: tuple[str, ...] = ()
) -> _Input:
    """Return the shape of an input's rows, which have the values of its columns in their order."""
    sizes = spec.shape[1:]
    fixed = tuple(size for size in sizes if isinstance(size, int))
    is_whole = len(fixed) == len(sizes)
    if is_whole and sizes and math.prod(fixed) != len(columns):
        names = [header[c] for c in columns]
        told = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise UserError(
            f"{source}: {len(columns)} columns feed the input {spec}, which takes "
            f"{math.prod(fixed)} values: {told or spec.name}",
            hint="remove columns that are not features; those that begin with y_ are targets",
        )
    dtype = spec.dtype if np.dtype(spec.dtype).kind in "iuf" else "float32"
    shape = fixed if is_whole else (len(columns),)
    return _Input(columns=columns, dtype=dtype, shape=shape)


def _write_arrays(source: str, path: Path, layout: _Layout, locate: Locate) -> None:
    numbers = {name: array("d") for name in layout.numbers}
    texts: dict[str, list[str]] = {name: [] for name in layout.texts}
    with ExitStack() as stack:
        append = {
            name: stack.enter_context(open_rows(locate(name), use.dtype, use.shape))
            for name, use in layout.inputs.items()
        }
        for chunk in _iter_chunks(source, path, layout):
            for name, use in layout.inputs.items():
                append[name](_cast(_to_numbers(chunk, use.columns), use, chunk))
            for name, place in layout.numbers.items():
                numbers[name].extend(_to_numbers(chunk, (place,))[:, 0])
            for name, place in layout.texts.items():
                texts[name] += [
                    check_label(row[place], chunk.locate(number, place))
                    for number, row in enumerate(chunk.rows)
                ]
    for name, found in numbers.items():
        save_array(locate(name), to_narrow_array(found))
    for name, labels in texts.items():
        save_array(locate(name), np.array(labels, dtype=np.str_))


def _iter_chunks(source: str, path: Path, layout: _Layout) -> Iterator[_Chunk]:
    chunk = _Chunk(source=source, header=layout.header)
    for line, row in islice(iter_csv_rows(path, source), 1, None):
        chunk.rows.append(row)
        chunk.lines.append(line)
        if len(chunk.rows) == _CHUNK_ROWS:
            yield chunk
            chunk = _Chunk(source=source, header=layout.header)
    if chunk.rows:
        yield chunk


def _to_numbers(chunk: _Chunk, columns: Sequence[int]) -> NDArray[np.float64]:
    values = np.empty((len(chunk.rows), len(columns)))
    for number, row in enumerate(chunk.rows):
        for place, column in enumerate(columns):
            value = read_number(row[column])
            if value is None:
                _refuse_cell(row[column], chunk.header[column], chunk.locate(number, column))
            else:
                values[number, place] = value
    return values


def _refuse_cell(cell: str, column: str, where: str) -> None:
    hint = "store categories as numbers (one column of 0 and 1 for each, as the model expects)"
    if is_target_name(column) or column == _TARGET:
        hint = "number the classes 0, 1, ..."
    refuse_cell(cell, where, hint)


def _cast(values: NDArray[np.float64], use: _Input, chunk: _Chunk) -> NDArray[np.generic]:
    """Convert values to the rows of an input; only rounding of floats may change them."""
    is_float = np.dtype(use.dtype).kind == "f"
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(use.dtype)
    good = np.isfinite(cast) if is_float else cast == values
    if not is_float:
        good &= np.abs(values) <= LARGEST_INTEGER
    if not good.all():
        row, place = np.argwhere(~good)[0]
        raise UserError(
            f"{chunk.locate(int(row), use.columns[place])}: {values[row, place]:g} is not a value "
            f"of {use.dtype}, the type of the input"
        )
    return cast.reshape(-1, *use.shape)
