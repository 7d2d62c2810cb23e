"""States of calibration samples: what the original model hands on from step to step."""

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

from edgekit.data import Dataset
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.progress import Tick
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.feeds import Batch, open_columns, runs
from edgekit_agent.files import whole_file, write_whole
from edgekit_agent.runtimes import Loaded, import_runtime
from edgekit_agent.samples import Column, Samples

_THREADS = 2
# Part of the name of what is kept; a new number where other rows come of the same data.
_VERSION = 1
_INDEX = "samples.json"

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One step: its number, and the states that it was run with, each without its batch."""

    number: int
    sequence: int
    states: Mapping[str, NDArray[Any]]

    @property
    def shapes(self) -> Shapes:
        return tuple(value.shape for value in self.states.values())


def with_states(
    dataset: Dataset, model: Model, *, dims: Mapping[str, int], cache: Path, tick: Tick
) -> Dataset:
    """The dataset with a column for each state, as the model hands it on along the sequences.

    Every row has the states that the step was run with. Where a state has no fixed size (the cache
    of a decoder grows), the rows are those of one size: what ``dims`` says, else the largest that
    every sequence has.

    Args:
        dataset: whose samples lack the states.
        model: the original.
        dims: sizes of free dimensions by name.
        cache: where the columns are kept.
        tick: called with the steps done, and all of them.

    Raises:
        UserError: the model fails on a step, or no step has states of the sizes asked for.
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
    known = _recalled(folder)
    if known is not None:
        return _completed(dataset, known, facts)
    try:
        loaded = import_runtime(_RUNTIMES[model.format])(str(model.path), _THREADS)
        wanted = _wanted(model, samples, dims)
        if wanted is None and _is_free(model, samples):
            wanted = _common(_rows(samples, loaded, dataset.count, tick))
        made = _written(samples, loaded, wanted, folder, dataset.count, tick)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error
    if not made.columns[0].shape[0]:
        raise UserError(
            f"{dataset.source}: no step has states of the sizes asked for",
            hint="sequences are too short for them: give smaller sizes with --dims",
        )
    write_whole(str(folder / _INDEX), json.dumps(encode(made)).encode())
    return _completed(dataset, made, facts)


def _completed(dataset: Dataset, samples: Samples, facts: list[object]) -> Dataset:
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    return replace(dataset, samples=samples, count=samples.columns[0].shape[0], digest=digest)


def _recalled(folder: Path) -> Samples | None:
    """What was written before, if it is whole."""
    try:
        samples = decode(Samples, json.loads((folder / _INDEX).read_bytes()))
        with open_columns(samples.columns):
            return samples if all(Path(c.path).is_file() for c in samples.files()) else None
    except (OSError, ValueError, AgentError):
        return None  # not there, or damaged: made again


_RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


def _is_free(model: Model, samples: Samples) -> bool:
    """Whether a state has a dimension without a size beside the samples'."""
    specs = {spec.name: spec for spec in model.signature.inputs}
    return any(
        not isinstance(dim, int) and axis != state.initial.axis
        for state in samples.states
        for axis, dim in enumerate(specs[state.initial.name].shape)
    )


def _wanted(model: Model, samples: Samples, dims: Mapping[str, int]) -> Shapes | None:
    """The shapes that ``dims`` asks the states to have; ``None`` where it leaves one open."""
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


def _rows(samples: Samples, loaded: Loaded, count: int, tick: Tick) -> Iterator[_Row]:
    sequence = -1
    for batch, _ in runs(samples, loaded, 1):
        sequence += batch.begins
        tick("states", batch.start, count)
        yield _row(samples, batch, sequence)


def _row(samples: Samples, batch: Batch, sequence: int) -> _Row:
    axes = {state.initial.name: state.initial.axis for state in samples.states}
    states = {
        name: np.take(batch.inputs[name], 0, axis) if axis >= 0 else batch.inputs[name]
        for name, axis in axes.items()
    }
    return _Row(number=batch.start, sequence=sequence, states=states)


def _common(rows: Iterator[_Row]) -> Shapes:
    """The largest shapes of states that every sequence has."""
    met: dict[Shapes, int] = {}  # with the number of sequences
    seen: set[Shapes] = set()
    last = -1
    for row in rows:
        seen = seen if row.sequence == last else set()
        last = row.sequence
        if row.shapes not in seen:
            seen.add(row.shapes)
            met[row.shapes] = met.get(row.shapes, 0) + 1
    everywhere = [shapes for shapes, sequences in met.items() if sequences == last + 1]
    return max(everywhere, key=lambda shapes: sum(map(_size, shapes)))


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _written(
    samples: Samples, loaded: Loaded, wanted: Shapes | None, folder: Path, count: int, tick: Tick
) -> Samples:
    """Samples whose states are columns, of the rows with states of the shapes that are wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [state.initial.name for state in samples.states]
    kept: list[int] = []
    shapes: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(whole_file(str(folder / _file_name(name)))) for name in names
        }
        for row in _rows(samples, loaded, count, tick):
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
    columns = samples.columns if len(kept) == count else _picked(samples.columns, kept, folder)
    label = samples.label
    if label is not None and len(kept) < count:
        (label,) = _picked((label,), kept, folder)
    return replace(samples, columns=(*columns, *states), label=label, states=(), sequence=None)


def _picked(columns: tuple[Column, ...], kept: list[int], folder: Path) -> tuple[Column, ...]:
    """Some rows of columns, in files of their own."""
    made = []
    with open_columns(columns) as opened:
        for column in columns:
            path = folder / f"rows-{_file_name(column.name)}"
            with whole_file(str(path)) as file:
                _copy(opened[column.name].read, kept, file)
            shape = (len(kept), *column.shape[1:])
            made.append(replace(column, path=str(path.resolve()), offset=0, shape=shape))
    return tuple(made)


def _copy(read: Any, kept: list[int], file: IO[bytes]) -> None:  # noqa: ANN401
    for number in kept:
        file.write(read(number, 1).tobytes())


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
