"""Kind of the scored output, from the original's own values: class scores, logits, embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.config.project import Project
from edgekit.data.dataset import Dataset
from edgekit.data.original_outputs import Original
from edgekit.errors import UserError
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.progress import Tick
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import find_batch_size, iter_runs, open_columns
from edgekit_agent.measure.scored_samples import select_output
from edgekit_agent.samples import Column

_SAMPLES = 32
_TOLERANCE = 1e-3
_FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class OutputLook:
    """Shape of an output of one sample, and whether it holds logits, not probabilities."""

    shape: tuple[int, ...]
    has_logits: bool


def has_class_scores(column: Column) -> bool:
    """Return whether rows of outputs look like the scores of classes.

    Single values, images and rows of length one (embeddings) do not.
    """
    sizes = [size for size in column.shape[1:] if size != 1]
    if len(sizes) != 1 or sizes[0] < _FEWEST_CLASSES:
        return False
    with open_columns([column]) as opened:
        rows = opened[column.name].read(0, min(_SAMPLES, column.shape[0])).astype(np.float64)
    lengths = np.sqrt(np.sum(rows.reshape(len(rows), -1) ** 2, axis=1))
    return not bool(np.allclose(lengths, 1, atol=_TOLERANCE) and (rows < 0).any())


def resolve_logits(
    scoring: Scoring, project: Project, original: Original, dataset: Dataset, tick: Tick
) -> Scoring:
    """Return the metrics with the option that tells logits from probabilities.

    Unless edgekit.toml sets it, it is found from the values of the original on some samples.

    Raises:
        UserError: The original fails on the samples.
    """
    if project.data.metric_options.logits is not None or scoring.postprocess is not None:
        return scoring
    if not any(get_metric(name).reads_probabilities for name in scoring.names):
        return scoring
    tick("looking at the outputs", 0, 0)
    logits = look_at_output(original, dataset, project.data.output).has_logits
    metrics = tuple(
        replace(job, options=replace(job.options, logits=logits)) for job in scoring.metrics
    )
    return replace(scoring, metrics=metrics)


def look_at_output(original: Original, dataset: Dataset, output: str | None) -> OutputLook:
    """Look at the scored output of the first samples, until one shows that it holds logits.

    Raises:
        UserError: The original fails on the samples.
    """
    samples = dataset.first(_SAMPLES).samples
    shape: tuple[int, ...] = ()
    try:
        loaded = original.load(samples, 1)
        size = find_batch_size(samples, loaded.inputs) or 1
        for batch, outputs in iter_runs(samples, loaded, size):
            rows = select_output(outputs, output, batch)
            shape = shape or rows.shape[1:]
            if not _are_probabilities(np.asarray(rows, np.float64)):
                return OutputLook(shape=shape, has_logits=True)
    except AgentError as error:
        raise UserError(
            f"the original fails on {dataset.source}: {error.failure.message}",
            hint=error.failure.hint,
        ) from error
    return OutputLook(shape=shape, has_logits=False)


def _are_probabilities(rows: NDArray[np.float64]) -> bool:
    """Return whether all values are from 0 to 1."""
    return bool((rows >= -_TOLERANCE).all() and (rows <= 1 + _TOLERANCE).all())
