"""Outputs, targets and inputs of a batch, split into samples and post-processed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional, Sequence

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import Batch
from edgekit_agent.metrics import ScoredSample
from edgekit_agent.metrics.ragged import cut_ragged
from edgekit_agent.scoring import Postprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays


def iter_scored_samples(
    batch: Batch,
    outputs: Arrays,
    names: Sequence[Optional[str]],
    settings: Optional[Postprocess] = None,
) -> Iterator[ScoredSample]:
    """Yield each sample of a batch with its outputs, targets and inputs.

    Args:
        batch: the samples.
        outputs: outputs of the model for the batch.
        names: outputs that metrics read; ``None`` stands for the first one.
        settings: post-processing, which reads its own outputs.

    Raises:
        AgentError: ``bad_job``; an output that is needed has no sample axis; ``model_failed`` if
            it is not finite, with the number of the sample.
    """
    if settings is not None:
        names = settings.outputs or tuple(outputs)
    needed = {name: select_output(outputs, name, batch) for name in names}
    for number in range(batch.rows):
        own = {name: _select_row(value, number, batch.size) for name, value in outputs.items()}
        found = {name: value for name, value in own.items() if value is not None}
        for name, values in needed.items():
            found[name if name is not None else next(iter(outputs))] = values[number]
        targets = _select_targets(batch, number)
        if settings is not None:
            from edgekit_agent.postprocess import postprocess

            found = postprocess(found, targets, settings)
        yield ScoredSample(
            number=batch.start + number,
            outputs=found,
            targets=targets,
            inputs={name: value[number] for name, value in _iter_input_rows(batch)},
        )


def select_output(outputs: Arrays, name: Optional[str], batch: Batch) -> NDArray[Any]:
    """Return an output of a batch without the rows that pad it; check that it is finite.

    Raises:
        AgentError: ``bad_job``; there is no such output, or it has no sample axis;
            ``model_failed`` if it is not finite.
    """
    if name is not None and name not in outputs:
        raise AgentError("bad_job", f"the model has no output {name!r}, only {', '.join(outputs)}")
    name = name if name is not None else next(iter(outputs))
    values = np.asarray(outputs[name])
    filled = batch.size
    if values.ndim == 0 or values.shape[0] != filled:
        if filled != 1:
            raise AgentError(
                "bad_job", f"output {name} has shape {values.shape} for a batch of {filled}"
            )
        values = values[None]
    values = values[: batch.rows]
    if values.dtype.kind == "f":
        finite = np.isfinite(values.reshape(batch.rows, -1)).all(axis=1)
        if not finite.all():
            sample = batch.start + int(np.argmin(finite))
            raise AgentError("model_failed", f"output {name} of sample {sample} is not finite")
    return values


def _select_row(value: NDArray[Any], number: int, filled: int) -> Optional[NDArray[Any]]:
    """Return one sample of an output; ``None`` if the output has no sample axis."""
    value = np.asarray(value)
    if value.ndim and value.shape[0] == filled:
        row: NDArray[Any] = value[number]
        return row
    return value if filled == 1 else None


def _select_targets(batch: Batch, number: int) -> Dict[str, NDArray[Any]]:
    return cut_ragged({name: np.asarray(rows[number]) for name, rows in batch.targets.items()})


def _iter_input_rows(batch: Batch) -> Iterator[Any]:
    """Yield the inputs whose first axis is that of the samples."""
    for name, value in batch.inputs.items():
        if value.ndim and value.shape[0] == batch.size:
            yield name, value
