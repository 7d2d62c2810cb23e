"""Trial run that shows if a model converted for one sample at a time computes batches as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edgekit.onnx_graph.io import make_session
from edgekit.tflite.ir import Array

_SAMPLES = 3
# Relative to the largest output: kernels add in another order in batches.
_TOLERANCE = 1e-4
# Size of every other free axis in the trial run.
_SIZE = 8
_REFUSALS = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.RuntimeException,
    failures.NotImplemented,
)


def takes_batches(proto: ModelProto) -> bool:
    """Return whether a model computes the same for a batch as for its samples one by one.

    The model runs on random samples. An error of the runtime or any difference means no.

    Args:
        proto: Model whose inputs all have a free first axis.
    """
    samples = [_draw_sample(proto, np.random.default_rng(seed)) for seed in range(_SAMPLES)]
    batch = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
    try:
        session = make_session(proto)
        batched_outputs = session.run(None, batch)
        sample_outputs = [session.run(None, sample) for sample in samples]
    except _REFUSALS:
        return False
    pairs = zip(batched_outputs, zip(*sample_outputs, strict=True), strict=True)
    return all(_is_joined(batched, singles) for batched, singles in pairs)


def _draw_sample(proto: ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    sample: dict[str, Array] = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        sizes = [d.dim_value or _SIZE for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        sizes[:1] = [1] * len(sizes[:1])
        numbers = rng.normal(size=sizes) if dtype.kind == "f" else rng.integers(0, 2, sizes)
        sample[value.name] = numbers.astype(dtype)
    return sample


def _is_joined(batch_output: Array, sample_outputs: Sequence[Array]) -> bool:
    if any(single.ndim == 0 or len(single) != 1 for single in sample_outputs):
        return False
    joined = np.concatenate(sample_outputs)
    if joined.shape != batch_output.shape or joined.dtype != batch_output.dtype:
        return False
    if joined.dtype.kind != "f":
        return bool(np.array_equal(joined, batch_output))
    largest = float(np.max(np.abs(joined), initial=0, where=np.isfinite(joined)))
    return bool(
        np.allclose(joined, batch_output, rtol=0, atol=_TOLERANCE * largest, equal_nan=True)
    )
