"""Whether a model that was made for one sample at a time works on batches as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edgekit.bridge.graph import Array
from edgekit.graphs.onnx_file import session_of

_SAMPLES = 3
# Of the largest output; sums are taken in another order in batches.
_TOLERANCE = 1e-4
# A free axis other than the first one, for the trial.
_SIZE = 8
_REFUSALS = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.RuntimeException,
    failures.NotImplemented,
)


def takes_batches(free: ModelProto) -> bool:
    """Whether a model computes of a batch what it computes of each sample alone.

    It is run on random samples; a refusal of the runtime and any difference means no.

    Args:
        free: with the first axis of all inputs free.
    """
    samples = [_sample(free, np.random.default_rng(seed)) for seed in range(_SAMPLES)]
    batch = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
    try:
        session = session_of(free)
        together = session.run(None, batch)
        alone = [session.run(None, sample) for sample in samples]
    except _REFUSALS:
        return False
    pairs = zip(together, zip(*alone, strict=True), strict=True)
    return all(_is_joined(batched, singles) for batched, singles in pairs)


def _sample(proto: ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    made: dict[str, Array] = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        sizes = [d.dim_value or _SIZE for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        sizes[:1] = [1] * len(sizes[:1])
        numbers = rng.normal(size=sizes) if dtype.kind == "f" else rng.integers(0, 2, sizes)
        made[value.name] = numbers.astype(dtype)
    return made


def _is_joined(batched: Array, singles: Sequence[Array]) -> bool:
    if any(single.ndim == 0 or len(single) != 1 for single in singles):
        return False
    joined = np.concatenate(singles)
    if joined.shape != batched.shape or joined.dtype != batched.dtype:
        return False
    if joined.dtype.kind != "f":
        return bool(np.array_equal(joined, batched))
    largest = float(np.max(np.abs(joined), initial=0, where=np.isfinite(joined)))
    return bool(np.allclose(joined, batched, rtol=0, atol=_TOLERANCE * largest, equal_nan=True))
