"""Run a graph over samples and look at values inside it, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from edgekit.errors import UserError, first_line
from edgekit.graphs.onnx_file import session_of, signature
from edgekit.model import TensorSpec
from edgekit_agent.failures import AgentError
from edgekit_agent.feeds import Batch, batches
from edgekit_agent.records import Samples
from edgekit_agent.runtimes import Tensor, fixed_batch

Values = dict[str, NDArray[np.generic]]
Tick = Callable[[int, int], None]


def observe(
    proto: ModelProto, names: Sequence[str], parts: Sequence[Samples], *, tick: Tick | None = None
) -> Iterator[Values]:
    """Yield the named values for each batch of samples.

    Nothing is kept between batches, so memory does not grow with the number of samples.

    Args:
        proto: the model; not changed.
        names: values of the main graph: inputs, outputs, or anything in between.
        parts: what to feed, one after the other.
        tick: called with samples done and samples in all.

    Raises:
        UserError: the samples are not what the model takes, or it fails on one of them.
    """
    session = _session(proto, names)
    inputs = signature(proto).inputs
    tensors = tuple(as_tensor(spec) for spec in inputs)
    batch = fixed_batch(tensors) or 1
    fed = {spec.name for spec in inputs}
    wanted = [name for name in names if name not in fed]
    done, total = 0, sum(part.columns[0].shape[0] for part in parts)
    for fed_batch in _fed(parts, tensors, batch):
        made = _run(session, wanted, fed_batch, done) if wanted else []
        values = fed_batch.inputs | dict(zip(wanted, made, strict=True))
        yield {name: values[name] for name in names}
        done += fed_batch.rows
        if tick:
            tick(done, total)


def _fed(parts: Sequence[Samples], tensors: Sequence[Tensor], batch: int) -> Iterator[Batch]:
    try:
        for samples in parts:
            yield from batches(samples, tensors, batch)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _run(
    session: ort.InferenceSession, wanted: list[str], batch: Batch, number: int
) -> list[NDArray[np.generic]]:
    try:
        made: list[NDArray[np.generic]] = session.run(wanted, batch.inputs)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        reason = first_line(error)
        raise UserError(f"the model fails on sample {number}: {reason}") from error
    return made


def as_tensor(spec: TensorSpec) -> Tensor:
    """The agent's name for an input or output."""
    return Tensor(spec.name, spec.dtype, tuple("?" if d is None else d for d in spec.shape))


def _session(proto: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    watched = ModelProto()
    watched.CopyFrom(proto)
    outputs = {v.name for v in watched.graph.output} | {v.name for v in watched.graph.input}
    watched.graph.output.extend(ValueInfoProto(name=n) for n in names if n not in outputs)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # The arena keeps what it once took; without it peak memory is that of one batch.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 2
    try:
        return session_of(watched, options)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        said = first_line(error)
        raise UserError(f"the values inside the model cannot be looked at: {said}") from error
