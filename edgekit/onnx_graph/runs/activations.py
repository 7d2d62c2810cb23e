"""Runs of a graph over samples that yield values inside it, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.errors import UserError, first_line
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.io import read_signature
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_instrumented
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import Batch, find_batch_size, iter_batches
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Samples

Values = dict[str, NDArray[np.generic]]
Tick = Callable[[int, int], None]
# Function that runs a session on one batch: (names of outputs, further inputs) -> values.
Run = Callable[[list[str], Values], Values]


def observe(
    proto: ModelProto, names: Sequence[str], parts: Sequence[Samples], *, tick: Tick | None = None
) -> Iterator[Values]:
    """Yield the named values for each batch of samples.

    Nothing is kept between batches, so memory does not grow with the number of samples.

    Args:
        proto: the model; not changed.
        names: values of the main graph: inputs, outputs, or anything in between.
        parts: the samples to feed, one part after the other.
        tick: called with the number of samples done and in total.

    Raises:
        UserError: the samples do not fit the model, or it fails on one of them.
    """
    tensors = get_input_tensors(proto)
    input_names = {tensor.name for tensor in tensors}
    computed_names = [name for name in names if name not in input_names]
    session = open_instrumented(proto, Additions(outputs=computed_names))
    del proto  # the session maps the weights from a file, so this copy may be freed
    for batch, run in feed(session, tensors, parts, tick=tick):
        values = batch.inputs | run(computed_names, {})
        yield {name: _drop_padding_rows(values[name], batch) for name in names}


def _drop_padding_rows(value: NDArray[np.generic], batch: Batch) -> NDArray[np.generic]:
    """Drop the rows that only fill up the last batch of a fixed size."""
    return value[: batch.rows] if value.shape[:1] == (batch.size,) else value


def feed(
    session: ort.InferenceSession,
    tensors: Sequence[Tensor],
    parts: Sequence[Samples],
    *,
    tick: Tick | None = None,
) -> Iterator[tuple[Batch, Run]]:
    """Yield each batch of samples with a function that runs the session on it.

    Args:
        session: of the model, or of the model with additions.
        tensors: the inputs of the model, with the types and shapes that samples must have.
        parts: the samples to feed, one part after the other.
        tick: called with the number of samples done and in total.

    Raises:
        UserError: the samples do not fit the model, or it fails on one of them.
    """
    samples_done, total = 0, sum(part.columns[0].shape[0] for part in parts)
    size = find_batch_size(parts[0], tensors) if parts else None
    for first, batch in _iter_batches(parts, tensors, size or 1):
        yield batch, partial(_run, session, batch, first + batch.start)
        samples_done += batch.rows
        if tick:
            tick(samples_done, total)


def _iter_batches(
    parts: Sequence[Samples], tensors: Sequence[Tensor], batch: int
) -> Iterator[tuple[int, Batch]]:
    """Yield each batch with the number of its part's first sample in the user's data."""
    try:
        for samples in parts:
            for batch_inputs in iter_batches(samples, tensors, batch):
                yield samples.first, batch_inputs
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _run(
    session: ort.InferenceSession, batch: Batch, number: int, names: list[str], more: Values
) -> Values:
    if not names:
        return {}
    try:
        outputs = session.run(names, batch.inputs | more)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        reason = first_line(error)
        raise UserError(f"the model fails on sample {number}: {reason}") from error
    return dict(zip(names, outputs, strict=True))


def get_input_tensors(proto: ModelProto) -> tuple[Tensor, ...]:
    """Return the inputs of a model as tensors of the agent."""
    return tuple(to_agent_tensor(spec) for spec in read_signature(proto).inputs)


def get_batch_size(samples: Samples, signature: Signature) -> int:
    """Return the batch size that a model requires; 1 if it takes any."""
    return find_batch_size(samples, tuple(map(to_agent_tensor, signature.inputs))) or 1


def to_agent_tensor(spec: TensorSpec) -> Tensor:
    """Convert the specification of an input or output to a tensor of the agent."""
    return Tensor(spec.name, spec.dtype, tuple("?" if d is None else d for d in spec.shape))
