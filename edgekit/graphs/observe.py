"""Run a graph over samples and look at values inside it, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from edgekit.graphs.onnx_file import signature
from edgekit.model import TensorSpec
from edgekit_agent.feeds import batches
from edgekit_agent.records import Samples
from edgekit_agent.runtimes import Tensor

Values = dict[str, NDArray[np.generic]]
Tick = Callable[[int, int], None]


def observe(
    proto: ModelProto, names: Sequence[str], samples: Samples, *, tick: Tick | None = None
) -> Iterator[Values]:
    """Yield the named values for each batch of samples.

    Nothing is kept between batches, so memory does not grow with the number of samples.

    Args:
        proto: the model; not changed.
        names: values of the main graph: inputs, outputs, or anything in between.
        samples: what to feed.
        tick: called with samples done and samples in all.
    """
    session = _session(proto, names)
    inputs = signature(proto).inputs
    fixed = inputs[0].shape[0] if inputs[0].shape else 1
    batch = fixed if isinstance(fixed, int) else 1
    tensors = [as_tensor(spec) for spec in inputs]
    fed = {spec.name for spec in inputs}
    wanted = [name for name in names if name not in fed]
    total = samples.columns[0].shape[0]
    for part in batches(samples, tensors, batch):
        made = session.run(wanted, part.inputs) if wanted else []
        values = part.inputs | dict(zip(wanted, made, strict=True))
        yield {name: values[name] for name in names}
        if tick:
            tick(part.start + part.rows, total)


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
    return ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
