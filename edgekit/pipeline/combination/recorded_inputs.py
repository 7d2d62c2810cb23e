"""Inputs that each model of a combination gets, recorded while it runs on samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.store import Store
from edgekit.data.dataset import Dataset
from edgekit.data.input_settings import WHOLE
from edgekit.data.lengths import pad_row
from edgekit.data.stored_arrays import store_array
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.pipeline.combination.models import CombinedModels
from edgekit.progress import Tick
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import iter_runs
from edgekit_agent.samples import Samples

_THREADS = 2
_KIND = "recorded-inputs"
# Part of the cache key; raised when the same models and samples give other records.
_VERSION = 2
# Runs of a model that are kept, spread over all samples, and their largest size together.
MOST_RUNS = 512
_MOST_BYTES = 256 << 20

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class RecordedInputs:
    """Inputs of a model, and how often it ran for each sample."""

    dataset: Dataset
    calls: float


@dataclass
class _Recorder:
    """Recorder of the inputs of a model: every run at first, then every second, and so on."""

    runs: int = 0
    kept: list[Arrays] = field(default_factory=list)
    _step: int = 1
    _bytes: int = 0

    def record(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Record the inputs of one run."""
        self.runs += 1
        if (self.runs - 1) % self._step:
            return
        self.kept.append({name: np.array(value) for name, value in inputs.items()})
        self._bytes += _count_bytes(self.kept[-1])
        while len(self.kept) > 1 and (len(self.kept) > MOST_RUNS or self._bytes > _MOST_BYTES):
            self.kept = self.kept[::2]
            self._step *= 2
            self._bytes = sum(map(_count_bytes, self.kept))


def _count_bytes(arrays: Arrays) -> int:
    return sum(value.nbytes for value in arrays.values())


def record_inputs(
    combined: CombinedModels, dataset: Dataset, *, store: Store, tick: Tick
) -> dict[str, RecordedInputs]:
    """Run a combination on samples and record the inputs of each model.

    Args:
        combined: The models and the function that combines them.
        dataset: The samples.
        store: Cache; what was recorded before is read from there.
        tick: Progress callback.

    Returns:
        The inputs by name of the model.

    Raises:
        UserError: The function or a model fails on a sample, or a model is never run.
    """
    facts = [_VERSION, combined.digest, dataset.digest, dataset.count]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    known = store.recall_as(_KIND, key, partial(_decode, combined=combined, dataset=dataset))
    if known is not None:
        return known
    recorders = _run(combined, dataset, tick)
    found = {
        name: _make_record(name, recorder, combined, dataset, store.root)
        for name, recorder in recorders.items()
    }
    encoded = {
        name: {
            "samples": encode(each.dataset.samples),
            "count": each.dataset.count,
            "calls": each.calls,
        }
        for name, each in found.items()
    }
    store.remember(_KIND, key, encoded)
    return found


def _run(combined: CombinedModels, dataset: Dataset, tick: Tick) -> dict[str, _Recorder]:
    recorders = {name: _Recorder() for name in combined.models}
    listeners = {name: recorder.record for name, recorder in recorders.items()}
    tick("recording the inputs of each model", 0, dataset.count)
    try:
        loaded = combined.load(dataset.samples, _THREADS, listeners)
        for batch, _ in iter_runs(dataset.samples, loaded, 1):
            tick("recording the inputs of each model", batch.start + 1, dataset.count)
    except AgentError as error:
        raise UserError(
            f"the models fail on {dataset.source}: {error.failure.message}",
            hint=error.failure.hint,
        ) from error
    return recorders


def _make_record(
    name: str, recorder: _Recorder, combined: CombinedModels, dataset: Dataset, cache: Path
) -> RecordedInputs:
    if not recorder.kept:
        raise UserError(
            f"{combined.run}: model {name} is not run on any of the {dataset.count} samples of "
            f"{dataset.source}",
            hint=f"call models[{name!r}] in {combined.run}, or remove [pipeline.models.{name}]",
        )
    is_split, rows = _split_runs(recorder.kept, combined.models[name])
    specs = combined.models[name].signature.inputs
    rows = _drop_if_too_large([row for row in rows if all(v.size for v in row.values())])
    if not rows:
        raise UserError(f"{combined.run}: model {name} gets empty inputs alone on {dataset.source}")
    columns, lengths = [], []
    for spec in specs:
        values = [row[spec.name] for row in rows]
        column = store_array(spec.name, _stack_padded(values), cache)
        columns.append(column if is_split else replace(column, axis=WHOLE))
        if len({value.shape for value in values}) > 1:
            sizes = np.array([value.shape for value in values], np.int64)
            lengths.append(store_array(spec.name, sizes, cache))
    samples = Samples(tuple(columns), lengths=tuple(lengths))
    return RecordedInputs(
        dataset=_make_dataset(name, samples, len(rows), dataset),
        calls=recorder.runs / dataset.count,
    )


def _stack_padded(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Stack arrays of one rank, each padded with zeros to the largest size."""
    size = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
    return np.stack([pad_row(value, size) for value in values])


def _drop_if_too_large(rows: Sequence[Arrays]) -> list[Arrays]:
    """Drop every second row until all together, padded to one size, are small enough."""
    kept = list(rows)
    while len(kept) > 1 and len(kept) * max(map(_count_bytes, kept)) > _MOST_BYTES:
        kept = kept[::2]
    return kept


def _split_runs(kept: Sequence[Arrays], model: Model) -> tuple[bool, list[Arrays]]:
    """Split runs into rows along the first axis, if all inputs share it; else keep whole runs."""
    signature = model.signature
    shares_axis = all(
        spec.shape and signature.sample_axis(spec) == 0 for spec in signature.inputs
    ) and all(len({value.shape[:1] for value in run.values()}) == 1 for run in kept)
    if not shares_axis:
        return False, list(kept)
    rows = [
        {name: value[place] for name, value in run.items()}
        for run in kept
        for place in range(next(iter(run.values())).shape[0])
    ]
    step = -(-len(rows) // MOST_RUNS)
    return (True, rows[::step]) if rows else (False, list(kept))


def _make_dataset(name: str, samples: Samples, count: int, source: Dataset) -> Dataset:
    paths = [
        (column.name, Path(column.path).name, column.axis)
        for column in (*samples.columns, *samples.lengths)
    ]
    return Dataset(
        source=f"inputs of {name} on {source.source}",
        samples=samples,
        count=count,
        digest=hashlib.sha256(json.dumps(paths).encode()).hexdigest(),
    )


def _decode(
    facts: Mapping[str, Any], *, combined: CombinedModels, dataset: Dataset
) -> dict[str, RecordedInputs]:
    """Return what was recorded before.

    Raises:
        ValueError: A file is missing or has another size.
    """
    found = {}
    for name in combined.models:
        each = facts[name]
        samples = decode(Samples, each["samples"])
        for column in (*samples.columns, *samples.lengths):
            size = int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize
            path = Path(column.path)
            if not path.is_file() or path.stat().st_size != size:
                raise ValueError(f"{path}: missing or damaged")
        found[name] = RecordedInputs(
            dataset=_make_dataset(name, samples, int(each["count"]), dataset),
            calls=float(each["calls"]),
        )
    return found
