"""Golden samples of a candidate, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.golden_samples import make_golden_samples
from edgekit.bundle.sample_statistics import KnownStatistics
from edgekit.config.profile import get_runtime
from edgekit.data.dataset import Dataset
from edgekit.data.streaming_states import add_states
from edgekit.model import Model
from edgekit.pipeline.measure_targets import compute_host_identity, get_host_threads
from edgekit.pipeline.request import BuildInputs
from edgekit.progress import Tick

# Part of the cache key; raised when the same samples are made otherwise.
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StoredGoldenSamples:
    """A file of golden samples in the cache, with a remark for the user."""

    path: Path
    note: str


def get_golden_samples(
    inputs: BuildInputs, model: Model, statistics: KnownStatistics, tick: Tick
) -> StoredGoldenSamples | None:
    """Return the golden samples of a model; make them once.

    Args:
        inputs: The inputs of the build.
        model: The original or a candidate.
        statistics: Statistics that the models of the build share.
        tick: Progress callback.

    Returns:
        The file, or ``None`` if the model is larger than 2 GiB and cannot be sent.

    Raises:
        NoGoldenSamples: The model has non-finite outputs on each synthetic sample.
    """
    if model.beside:
        return None
    store = inputs.store
    split = inputs.calibration or _complete_samples(inputs, tick)
    runtime, threads = get_runtime(model), get_host_threads(inputs.profile)
    kind = inputs.project.golden.samples
    facts = [model.digest, split.digest, compute_host_identity(runtime), threads]
    facts += [_VERSION, kind, inputs.seed if kind == "synthetic" else 0]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    known = store.recall_as("golden", key, lambda f: (str(f["digest"]), str(f["note"])))
    path = store.get(known[0]) if known else None
    if known and path:
        return StoredGoldenSamples(path=path, note=known[1])
    tick("golden samples", 0, 0)
    made = make_golden_samples(
        model.path,
        runtime,
        threads,
        split=split,
        model_bytes=model.bytes,
        kind=kind,
        seed=inputs.seed,
        known=statistics,
    )
    with store.scratch() as scratch:
        (scratch / "golden.npz").write_bytes(made.data)
        path = store.put(scratch / "golden.npz")
    store.remember("golden", key, {"digest": path.name, "note": made.note})
    return StoredGoldenSamples(path=path, note=made.note)


def _complete_samples(inputs: BuildInputs, tick: Tick) -> Dataset:
    """Return the samples of the model with the recurrent states that the original computes."""
    if not inputs.model_samples.samples.states:
        return inputs.model_samples
    return add_states(
        inputs.model_samples,
        inputs.model,
        dims=inputs.feeding.dims,
        cache=inputs.store.root,
        tick=tick,
    )
