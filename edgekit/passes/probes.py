"""What a model and the one made of it are fed to be compared: samples, variants, made-up inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data import spread
from edgekit.errors import UserError
from edgekit.graphs.observe import as_tensor
from edgekit.graphs.outputs import Arrays
from edgekit.model import Model, TensorSpec
from edgekit_agent.failures import AgentError
from edgekit_agent.feeds import batches
from edgekit_agent.records import Samples
from edgekit_agent.runtimes import Tensor, fixed_batch

# Enough to see that outputs follow the original's; a large model is slow, so it gets fewer.
_SAMPLES = 16
_SAMPLES_OF_LARGE = 8
_LARGE_BYTES = 64 << 20
_TOGETHER = 3
# Sizes of free dimensions that nobody told; the original says which of them it takes.
_SIZES = (64, 16, 1)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One feed. ``rows`` samples of it are real ones; 0 in a variant, which the original may
    refuse."""

    what: str
    feed: Arrays
    rows: int = 0

    @property
    def batch(self) -> int:
        """Length of the first axis; 1 where there is none."""
        first = next(iter(self.feed.values()))
        return len(first) if first.ndim else 1


def probes(model: Model, samples: Samples | None, *, seed: int) -> Iterator[Probe]:
    """What to feed: calibration samples and variants of them, or made-up inputs without any.

    Where the batch is free, three samples at once are among them, and where other dimensions are
    free, half of each.

    Raises:
        UserError: the samples are not what the model takes.
    """
    if samples is None:
        yield from _made_up(model.signature.inputs, seed)
        return
    specs = model.signature.inputs
    tensors = tuple(as_tensor(spec) for spec in specs)
    first: list[Arrays] = []
    for probe in _real(model, samples, tensors):
        first = [*first, probe.feed][:_TOGETHER]
        yield probe
    if fixed_batch(tensors) is None:
        repeated = (first * _TOGETHER)[:_TOGETHER]
        joined = {s.name: np.concatenate([feed[s.name] for feed in repeated]) for s in specs}
        yield Probe(what=f"{_TOGETHER} samples at once", feed=joined)
    halves = {spec.name: _halved(first[0][spec.name], spec) for spec in specs}
    if any(halves[name].shape != value.shape for name, value in first[0].items()):
        yield Probe(what="a sample of half the size", feed=halves)


def _real(model: Model, samples: Samples, tensors: Sequence[Tensor]) -> Iterator[Probe]:
    count = _SAMPLES_OF_LARGE if model.bytes > _LARGE_BYTES else _SAMPLES
    number = 0
    try:
        for part in spread(samples, count):
            for batch in batches(part, tensors, fixed_batch(tuple(tensors)) or 1):
                yield Probe(what=f"sample {number}", feed=batch.inputs, rows=batch.rows)
                number += batch.rows
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _halved(value: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    """The first half along every free axis but the batch's."""
    free = [axis for axis, d in enumerate(spec.shape) if axis and not isinstance(d, int)]
    cuts = [slice(None)] * value.ndim
    for axis in free:
        cuts[axis] = slice(max(value.shape[axis] // 2, 1))
    return np.ascontiguousarray(value[tuple(cuts)])


def _made_up(specs: Sequence[TensorSpec], seed: int) -> Iterator[Probe]:
    """Normal values for floats, zeros for whole numbers, which may be indices."""
    free_batch = all(spec.shape and not isinstance(spec.shape[0], int) for spec in specs)
    others = any(not isinstance(d, int) for spec in specs for d in spec.shape[1:])
    for size in _SIZES if others else _SIZES[:1]:
        for batch in (1, _TOGETHER) if free_batch else (1,):
            rng = np.random.default_rng(seed)
            feed = {spec.name: _values(spec, batch, size, rng) for spec in specs}
            yield Probe(what="made-up inputs", feed=feed)


def _values(
    spec: TensorSpec, batch: int, size: int, rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = tuple(
        d if isinstance(d, int) else size if axis else batch for axis, d in enumerate(spec.shape)
    )
    if np.dtype(spec.dtype).kind == "f":
        return rng.standard_normal(shape, np.float32).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
