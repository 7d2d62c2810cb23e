"""Facts of targets and outputs that tell which task a model has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.column_rows import read_column
from edgekit.data.dataset import Dataset
from edgekit.data.subsets import count_samples, select_rows, select_spread
from edgekit.data.targets import PREFIX, iter_targets
from edgekit.errors import UserError
from edgekit.model import Model, Signature
from edgekit.onnx_graph.runs.activations import get_batch_size, to_agent_tensor
from edgekit.onnx_graph.runs.model_outputs import iter_outputs
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.metrics.ragged import get_length_name
from edgekit_agent.metrics.shapes import drop_ones
from edgekit_agent.samples import TARGET, Samples

# Samples whose outputs are looked at, samples whose targets are, and their largest total size.
_RUNS, _TARGETS, _MOST_VALUES = 8, 512, 1 << 22
# More distinct values than this are no labels of classes.
_MOST_DISTINCT = 4096
BOX_NUMBERS = (5, 6)
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """Facts of the main target.

    Attributes:
        shape: Shape of one sample as it is stored.
        is_ragged: Whether samples have lengths of their own.
        is_whole: Whether all values are whole numbers.
        dtype: Name of the type.
        distinct: The distinct values, if there are few.
        low: Smallest value.
        high: Largest value.
        common: Share of the most common value.
    """

    shape: tuple[int, ...]
    is_ragged: bool
    is_whole: bool
    dtype: str
    distinct: tuple[float, ...]
    low: float
    high: float
    common: float

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the shape without axes of length 1."""
        return drop_ones(self.shape)

    @property
    def is_binary(self) -> bool:
        """Return whether all values are 0 or 1; -1 beside both is a label that is not scored."""
        values = set(self.distinct)
        return bool(values) and (values <= {0.0, 1.0} or values == {-1.0, 0.0, 1.0})

    @property
    def has_boxes(self) -> bool:
        """Return whether the targets of a sample are boxes [M, 5 or 6]."""
        return self.is_ragged and len(self.shape) == 2 and self.shape[1] in BOX_NUMBERS


@dataclass(frozen=True, kw_only=True)
class OutputFacts:
    """Facts of one output of the model.

    Attributes:
        name: Its name.
        shape: Shape of one sample; ``None`` = a free size.
        dtype: Name of the type.
        low: Smallest value on some samples; nan if the model was not run.
        high: Largest value.
        sums_to_one: Whether the last axis holds probabilities.
        has_unit_length: Whether the values of each sample are a vector of length 1.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    low: float = math.nan
    high: float = math.nan
    sums_to_one: bool = False
    has_unit_length: bool = False

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Return the shape without axes of length 1."""
        return tuple(size for size in self.shape if size != 1)

    @property
    def is_in_unit_range(self) -> bool:
        """Return whether all values are from 0 to 1, or unknown."""
        return not (self.low < 0 or self.high > 1)


def read_target_facts(dataset: Dataset) -> TargetFacts | None:
    """Read the facts of the main target from all over the split; ``None`` without targets."""
    label = dataset.samples.label
    if label is None:
        return None
    size = math.prod(label.shape[1:])
    lengths = {column.name for column in dataset.samples.targets}
    if size == 1:
        values = read_column(label).reshape(-1)
    else:
        count = max(8, min(_TARGETS, _MOST_VALUES // max(size, 1)))
        parts = select_spread(dataset.samples, count)
        found = [each[TARGET].reshape(-1) for part in parts for each in iter_targets(part)]
        values = np.concatenate(found) if found else np.empty(0)
    numbers = values.astype(np.float64)
    distinct, counts = np.unique(numbers, return_counts=True)
    return TargetFacts(
        shape=label.shape[1:],
        is_ragged=get_length_name(TARGET) in lengths,
        is_whole=bool((np.floor(numbers) == numbers).all()),
        dtype=label.dtype,
        distinct=tuple(distinct.tolist()) if distinct.size <= _MOST_DISTINCT else (),
        low=float(distinct[0]) if distinct.size else 0.0,
        high=float(distinct[-1]) if distinct.size else 0.0,
        common=float(counts.max() / counts.sum()) if distinct.size else 0.0,
    )


def list_target_names(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of all arrays or columns of targets, without those of lengths."""
    found = dataset.samples.get_targets()
    lengths = {get_length_name(name) for name in found}
    names = (name for name in found if name not in lengths)
    return tuple(name if name == TARGET else PREFIX + name for name in names)


def read_output_facts(signature: Signature) -> tuple[OutputFacts, ...]:
    """Return the facts of the outputs that the model file states."""
    return tuple(
        OutputFacts(
            name=spec.name,
            shape=tuple(size if isinstance(size, int) else None for size in spec.shape[1:]),
            dtype=spec.dtype,
        )
        for spec in signature.outputs
    )


def measure_output_facts(model: Model, dataset: Dataset) -> tuple[OutputFacts, ...]:
    """Run the model on a few samples, and return the facts of its outputs.

    Models with states are not run. If the model fails, the facts are those of the model file.
    """
    stated = read_output_facts(model.signature)
    samples = dataset.samples
    if samples.states:
        return stated
    try:
        seen = _run(model, select_spread(samples, _RUNS))
    except (UserError, AgentError):
        return stated
    return tuple(_describe(facts, seen[facts.name]) for facts in stated) if seen else stated


def _run(model: Model, parts: Sequence[Samples]) -> dict[str, list[NDArray[np.float64]]]:
    """Return each output of each sample as float64."""
    tensors = tuple(map(to_agent_tensor, model.signature.inputs))
    part = select_rows(parts[0], 0, min(_RUNS, count_samples(parts[:1])))
    batches = list(iter_batches(part, tensors, get_batch_size(part, model.signature)))
    seen: dict[str, list[NDArray[np.float64]]] = {}
    for batch, outputs in zip(
        batches, iter_outputs(model, (batch.inputs for batch in batches)), strict=True
    ):
        if isinstance(outputs, str):
            return {}
        for name, values in outputs.items():
            rows = list(values[: batch.rows]) if values.shape[:1] == (batch.size,) else [values]
            seen.setdefault(name, []).extend(np.asarray(row, np.float64) for row in rows)
    return seen


def _describe(stated: OutputFacts, rows: Sequence[NDArray[np.float64]]) -> OutputFacts:
    first = rows[0]
    if not all(row.size and row.shape == first.shape for row in rows):
        return stated
    stacked = np.stack(rows)
    lasts = stacked if stacked.ndim > 1 else stacked[:, None]
    sums = np.abs(lasts.sum(axis=-1) - 1).max() < _TOLERANCE and lasts.min() >= 0
    lengths = np.sqrt((stacked.reshape(len(rows), -1) ** 2).sum(axis=1))
    return OutputFacts(
        name=stated.name,
        shape=first.shape,
        dtype=stated.dtype,
        low=float(stacked.min()),
        high=float(stacked.max()),
        sums_to_one=bool(sums) and lasts.shape[-1] > 1,
        has_unit_length=bool(np.abs(lengths - 1).max() < _TOLERANCE),
    )
