"""Outputs of the original for each sample, stored as targets for samples without labels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.config.profile import get_runtime
from edgekit.data.dataset import Dataset
from edgekit.data.lengths import pad_row
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.progress import Tick
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic, write_atomic
from edgekit_agent.measure.feeds import Batch, find_batch_size, iter_runs, open_columns
from edgekit_agent.measure.scored_samples import select_output
from edgekit_agent.metrics.ragged import get_length_name
from edgekit_agent.runtimes import LoadedModel, import_runtime
from edgekit_agent.samples import Column, Samples

_THREADS = 2
# Part of the cache key; raised when the same data gives other outputs.
_VERSION = 1
_INDEX, _SEAL = "samples.json", "seal"

Shape = tuple[int, ...]


class Original(Protocol):
    """Reference of all candidates: a model, or several that are combined."""

    @property
    def digest(self) -> str:
        """Return a digest of everything that decides its outputs."""

    @property
    def display_name(self) -> str:
        """Return its name, as the user gave it."""

    def load(self, samples: Samples, threads: int) -> LoadedModel:
        """Load it in this process.

        Args:
            samples: Samples that it will be run on.
            threads: Number of threads.

        Raises:
            AgentError: It cannot be loaded.
        """


@dataclass(frozen=True, kw_only=True)
class SingleModel:
    """A model as the original."""

    model: Model

    @property
    def digest(self) -> str:
        """Return the digest of the model."""
        return self.model.digest

    @property
    def display_name(self) -> str:
        """Return the model as the user named it."""
        return self.model.display_name

    def load(self, samples: Samples, threads: int) -> LoadedModel:
        """Load the model in this process."""
        del samples
        return import_runtime(get_runtime(self.model))(str(self.model.path), threads)


def add_original_outputs(
    dataset: Dataset, original: Original, *, cache: Path, tick: Tick
) -> Dataset:
    """Add the outputs of the original as targets, one column for each, under the output's name.

    Outputs that are fed back as states, and those whose shape varies, are left out. If the samples
    themselves differ in size, an output whose shape varies is padded, and its lengths are a target
    too.

    Args:
        dataset: Samples; their own targets are replaced.
        original: The original.
        cache: Folder for the columns.
        tick: Progress callback.

    Raises:
        UserError: The model fails on a sample, or no output has a row for each sample.
    """
    facts = [_VERSION, dataset.digest, original.digest, dataset.count]
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    folder = cache / "outputs" / digest
    columns = _load(folder)
    if columns is None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            columns = _write(dataset.samples, original, folder, dataset.count, tick)
        except AgentError as error:
            raise UserError(
                f"the original fails on {dataset.source}: {error.failure.message}",
                hint=error.failure.hint,
            ) from error
        if not columns:
            raise UserError(
                f"{original.display_name}: no output has one row of the same shape for each sample",
                hint="give labels (an array 'y') and a metric",
            )
        write_atomic(str(folder / _INDEX), json.dumps(encode(Samples(columns))).encode())
        seal_files(folder / _SEAL, _list_files(folder, columns))
    samples = replace(dataset.samples, label=None, targets=columns)
    return replace(dataset, samples=samples, digest=digest)


def _list_files(folder: Path, columns: tuple[Column, ...]) -> list[Path]:
    return [folder / _INDEX, *(Path(column.path) for column in columns)]


def _load(folder: Path) -> tuple[Column, ...] | None:
    """Load the outputs of an earlier run, if they are complete."""
    try:
        columns = decode(Samples, json.loads((folder / _INDEX).read_bytes())).columns
        with open_columns(columns):
            sealed = are_files_sealed(folder / _SEAL, _list_files(folder, columns))
            return columns if sealed else None
    except (OSError, ValueError, AgentError):
        return None  # missing or damaged: compute them again


def _write(
    samples: Samples, original: Original, folder: Path, count: int, tick: Tick
) -> tuple[Column, ...]:
    loaded = original.load(samples, _THREADS)
    size = find_batch_size(samples, loaded.inputs) or 1
    fed_back = {state.output for state in samples.states}
    shapes: dict[str, list[Shape]] = {}
    files: dict[str, BinaryIO] = {}
    with ExitStack() as stack:
        for batch, outputs in iter_runs(samples, loaded, size):
            tick("outputs of the original", batch.start, count)
            if not files:
                shapes = {name: [] for name in _list_names(outputs, fed_back)}
                for name in shapes:
                    path = folder / str(len(files))
                    files[name] = stack.enter_context(open_atomic(str(path)))
            for name, known in list(shapes.items()):
                rows = _select_rows(outputs, name, batch)
                if rows is None or not _may_follow(rows.shape[1:], known, samples):
                    del shapes[name]
                    continue
                if samples.lengths or not known:
                    known.append(rows.shape[1:])
                files[name].write(np.ascontiguousarray(rows, "<f4").tobytes())
    made: list[Column] = []
    for number, name in enumerate(files):
        if found := shapes.get(name):
            path = folder / str(number)
            made += (
                [_describe(name, path, "float32", (count, *found[0]))]
                if len(set(found)) == 1
                else _pad(name, path, found)
            )
    return tuple(made)


def _list_names(outputs: Mapping[str, NDArray[Any]], fed_back: set[str]) -> list[str]:
    """List the outputs to store; a target called like a length would be the length of another."""
    names = [name for name in outputs if name not in fed_back]
    return [name for name in names if name not in map(get_length_name, names)]


def _may_follow(shape: Shape, known: Sequence[Shape], samples: Samples) -> bool:
    """Return whether a row can be stored with the earlier ones."""
    if not known or shape == known[0]:
        return True
    return bool(samples.lengths) and len(shape) == len(known[0])


def _describe(name: str, path: Path, dtype: str, shape: Shape) -> Column:
    return Column(name, str(path.resolve()), 0, dtype, shape)


def _pad(name: str, path: Path, shapes: Sequence[Shape]) -> list[Column]:
    """Pad the rows of a file to one size; return the columns of the rows and of their lengths."""
    lengths = np.array(shapes, np.int64)
    size = tuple(lengths.max(axis=0).tolist())
    padded, beside = path.with_name(f"{path.name}-padded"), path.with_name(f"{path.name}-lengths")
    with path.open("rb") as rows, open_atomic(str(padded)) as out:
        for shape in shapes:
            row = np.frombuffer(rows.read(4 * math.prod(shape)), "<f4").reshape(shape)
            out.write(pad_row(row, size).tobytes())
    path.unlink()
    write_atomic(str(beside), lengths.tobytes())
    return [
        _describe(name, padded, "float32", (len(shapes), *size)),
        _describe(get_length_name(name), beside, "int64", lengths.shape),
    ]


def _select_rows(
    outputs: Mapping[str, NDArray[Any]], name: str, batch: Batch
) -> NDArray[Any] | None:
    """Return the rows of an output; ``None`` if it has none for each sample, or is not finite."""
    if name not in outputs:
        return None
    try:
        rows = select_output(dict(outputs), name, batch)
    except AgentError:
        return None
    return rows if rows.dtype.kind in "fiub" and rows.size else None
