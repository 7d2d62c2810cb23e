"""States of calibration samples, computed by running the original model step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.config.profile import get_runtime
from edgekit.data.dataset import Dataset
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.progress import Tick
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic, write_atomic
from edgekit_agent.measure.feeds import Batch, iter_runs, open_columns
from edgekit_agent.runtimes import LoadedModel, import_runtime
from edgekit_agent.samples import Column, Samples

_THREADS = 2
# Part of the cache key; raised when the same data gives other rows.
_VERSION = 3
_INDEX, _SEAL = "samples.json", "seal"

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A step: its number, its sequence, and the states before it, without batch axis."""

    number: int
    sequence: int
    states: Mapping[str, NDArray[Any]]

    @property
    def shapes(self) -> Shapes:
        return tuple(value.shape for value in self.states.values())


def add_states(
    dataset: Dataset, model: Model, *, dims: Mapping[str, int], cache: Path, tick: Tick
) -> Dataset:
    """Add a column for each state to a dataset, by running the model along the sequences.

    Every row holds the states before its step. If a state grows (the cache of a decoder), only rows
    of one size are kept: the size in ``dims``, else the largest size that occurs in every sequence.

    Args:
        dataset: Samples without states.
        model: The original.
        dims: Sizes of free dimensions by name.
        cache: Folder for the columns.
        tick: Progress callback.

    Raises:
        UserError: The model fails on a step, or no step has states of the requested sizes.
    """
    samples = dataset.samples
    facts: list[object] = [
        _VERSION,
        dataset.digest,
        model.digest,
        dataset.count,
        sorted(dims.items()),
    ]
    folder = cache / "states" / hashlib.sha256(repr(facts).encode()).hexdigest()
    known = _load(folder)
    if known is not None:
        return _replace_samples(dataset, known, facts)
    try:
        loaded = import_runtime(get_runtime(model))(str(model.path), _THREADS)
        wanted = _get_requested_shapes(model, samples, dims)
        if wanted is None and _has_free_state(model, samples):
            wanted = _find_largest_common_shapes(_iter_rows(samples, loaded, dataset.count, tick))
        made = _write(samples, loaded, wanted, folder, dataset.count, tick)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error
    if not made.columns[0].shape[0]:
        raise UserError(
            f"{dataset.source}: at no step do the states have the requested sizes",
            hint="the sequences are too short; give smaller sizes with --dims",
        )
    write_atomic(str(folder / _INDEX), json.dumps(encode(made)).encode())
    seal_files(folder / _SEAL, _list_sealed_files(folder, made))
    return _replace_samples(dataset, made, facts)


def _replace_samples(dataset: Dataset, samples: Samples, facts: list[object]) -> Dataset:
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    count = samples.columns[0].shape[0]
    made = replace(dataset, samples=samples, count=count, digest=digest)
    # Which rows were kept is not stored; nobody asks for the groups of calibration samples.
    return made if count == dataset.count else replace(made, groups=None, slices={})


def _list_sealed_files(folder: Path, samples: Samples) -> list[Path]:
    """List the index of the samples and every file that it names."""
    named = dict.fromkeys(Path(column.path) for column in samples.files())
    return [folder / _INDEX, *named]


def _load(folder: Path) -> Samples | None:
    """Load the samples of an earlier run, if they are complete."""
    try:
        samples = decode(Samples, json.loads((folder / _INDEX).read_bytes()))
        with open_columns(samples.columns):
            return (
                samples
                if are_files_sealed(folder / _SEAL, _list_sealed_files(folder, samples))
                else None
            )
    except (OSError, ValueError, AgentError):
        return None  # missing or damaged: compute it again


def _has_free_state(model: Model, samples: Samples) -> bool:
    """Return whether a state has a free dimension besides its sample axis."""
    specs = {spec.name: spec for spec in model.signature.inputs}
    return any(
        not isinstance(dim, int) and axis != state.initial.axis
        for state in samples.states
        for axis, dim in enumerate(specs[state.initial.name].shape)
    )


def _get_requested_shapes(model: Model, samples: Samples, dims: Mapping[str, int]) -> Shapes | None:
    """Return the state shapes given by ``dims``; ``None`` if a size is missing."""
    specs = {spec.name: spec for spec in model.signature.inputs}
    found: list[tuple[int, ...]] = []
    for state in samples.states:
        spec = specs[state.initial.name]
        sizes = [
            dims.get(spec.dimension(axis)) if not isinstance(dim, int) else dim
            for axis, dim in enumerate(spec.shape)
            if axis != state.initial.axis
        ]
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            return None
        found.append(known)
    return tuple(found)


def _iter_rows(samples: Samples, loaded: LoadedModel, count: int, tick: Tick) -> Iterator[_Row]:
    sequence = -1
    for batch, _ in iter_runs(samples, loaded, 1):
        sequence += batch.begins
        tick("states", batch.start, count)
        yield _make_row(samples, batch, sequence)


def _make_row(samples: Samples, batch: Batch, sequence: int) -> _Row:
    axes = {state.initial.name: state.initial.axis for state in samples.states}
    states = {
        name: np.take(batch.inputs[name], 0, axis) if axis >= 0 else batch.inputs[name]
        for name, axis in axes.items()
    }
    return _Row(number=batch.start, sequence=sequence, states=states)


def _find_largest_common_shapes(rows: Iterator[_Row]) -> Shapes:
    """Find the largest state shapes that occur in every sequence."""
    met: dict[Shapes, int] = {}  # number of sequences with these shapes
    seen: set[Shapes] = set()
    last = -1
    for row in rows:
        seen = seen if row.sequence == last else set()
        last = row.sequence
        if row.shapes not in seen:
            seen.add(row.shapes)
            met[row.shapes] = met.get(row.shapes, 0) + 1
    everywhere = [shapes for shapes, sequences in met.items() if sequences == last + 1]
    return max(everywhere, key=lambda shapes: sum(map(_count_values, shapes)))


def _count_values(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _write(
    samples: Samples,
    loaded: LoadedModel,
    wanted: Shapes | None,
    folder: Path,
    count: int,
    tick: Tick,
) -> Samples:
    """Write the states as columns; rows with other than the wanted shapes are dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [state.initial.name for state in samples.states]
    kept: list[int] = []
    shapes: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(open_atomic(str(folder / _file_name(name)))) for name in names
        }
        for row in _iter_rows(samples, loaded, count, tick):
            if wanted is not None and row.shapes != wanted:
                continue
            kept.append(row.number)
            for name, value in row.states.items():
                shapes[name] = value.shape
                files[name].write(np.ascontiguousarray(value).tobytes())
    states = tuple(
        replace(
            state.initial,
            path=str((folder / _file_name(state.initial.name)).resolve()),
            offset=0,
            shape=(len(kept), *shapes.get(state.initial.name, ())),
        )
        for state in samples.states
    )
    columns = samples.columns if len(kept) == count else _select_rows(samples.columns, kept, folder)
    if len(kept) < count:
        samples = _select_others(samples, kept, folder)
    return replace(samples, columns=(*columns, *states), states=())


def _select_others(samples: Samples, kept: list[int], folder: Path) -> Samples:
    """Copy the selected rows of targets, sequence numbers and lengths into new files."""

    def select(column: Column, role: str) -> Column:
        # The role keeps the files apart: a target may have the name of an input.
        (made,) = _select_rows((replace(column, name=f"{role} {column.name}"),), kept, folder)
        return replace(made, name=column.name)

    return replace(
        samples,
        label=samples.label and select(samples.label, "label"),
        targets=tuple(select(column, "target") for column in samples.targets),
        sequence=samples.sequence and select(samples.sequence, "sequence"),
        lengths=tuple(select(column, "length") for column in samples.lengths),
    )


def _select_rows(columns: tuple[Column, ...], kept: list[int], folder: Path) -> tuple[Column, ...]:
    """Copy the selected rows of columns into new files."""
    made = []
    with open_columns(columns) as opened:
        for column in columns:
            path = folder / f"rows-{_file_name(column.name)}"
            with open_atomic(str(path)) as file:
                _copy_rows(opened[column.name].read, kept, file)
            shape = (len(kept), *column.shape[1:])
            made.append(replace(column, path=str(path.resolve()), offset=0, shape=shape))
    return tuple(made)


def _copy_rows(read: Any, kept: list[int], file: IO[bytes]) -> None:  # noqa: ANN401
    for number in kept:
        file.write(read(number, 1).tobytes())


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
