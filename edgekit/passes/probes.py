"""What a model and the one made of it are fed to be compared: samples, variants, made-up inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError
from edgekit.feeding import WHOLE, Feeding
from edgekit.graphs.observe import as_tensor
from edgekit.graphs.outputs import Arrays, outputs
from edgekit.model import Model, Signature, TensorSpec
from edgekit.subsets import count_of, parts_of, spread
from edgekit_agent.failures import AgentError
from edgekit_agent.feeds import batch_size, batches
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Column, Samples

# Enough to see that outputs follow the original's; a large model is slow, so it gets fewer.
_SAMPLES = 16
_SAMPLES_OF_LARGE = 8
_LARGE_BYTES = 64 << 20
_TOGETHER = 3
# Sizes of free dimensions that nobody told; the original says which of them it takes.
_SIZES = (64, 16, 1)
_LARGER = (1024, 16000)  # where a border is mirrored, as before a spectrogram


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One feed of ``batch`` samples.

    ``rows`` of them are real ones; 0 in a variant, which the original may refuse. ``judges`` is
    false of samples that the result was fitted to where there are others.
    """

    what: str
    feed: Arrays
    rows: int = 0
    batch: int = 1
    judges: bool = True


def narrower(before: Model, after: Model) -> Model:
    """The one of two models that says which sizes both can be fed."""
    pairs = zip(before.signature.inputs, after.signature.inputs, strict=False)
    fixes = any(
        isinstance(now, int) and not isinstance(was, int)
        for old, new in pairs
        for was, now in zip(old.shape, new.shape, strict=False)
    )
    return after if before.format != after.format and fixes else before


def probes(
    model: Model,
    samples: Samples | Sequence[Samples] | None,
    *,
    unseen: Sequence[Samples] = (),
    seed: int,
    feeding: Feeding | None = None,
) -> Iterator[Probe]:
    """What to feed: calibration samples and variants of them, or made-up inputs without any.

    Where the batch is free, three samples at once are among them, and where other dimensions are
    free, half of each.

    Args:
        model: whose inputs are fed.
        samples: real ones.
        unseen: others, which judge in their place; they come first.
        seed: of what is made up.
        feeding: what edgekit.toml says of the inputs, for those that are made up.

    Raises:
        UserError: the samples are not what the model takes.
    """
    if samples is None:
        yield from _made_up(model.signature, feeding or Feeding(), seed)
        return
    specs = model.signature.inputs
    tensors = tuple(as_tensor(spec) for spec in specs)
    seen = parts_of(samples)
    first: list[Arrays] = []
    for parts in (unseen, seen) if unseen else (seen,):
        for probe in _real(model, parts, tensors):
            if len(first) < _TOGETHER:
                first.append(probe.feed)
            yield replace(probe, judges=parts is unseen or not unseen)
    axes = {column.name: column.axis for column in seen[0].columns}
    if batch_size(seen[0], tensors) is None:
        repeated = (first * _TOGETHER)[:_TOGETHER]
        joined = {
            name: np.concatenate([feed[name] for feed in repeated], axes[name])
            if name in axes
            else value
            for name, value in first[0].items()
        }
        yield Probe(what=f"{_TOGETHER} samples at once", feed=joined, batch=_TOGETHER)
    halves = {
        spec.name: _halved(first[0][spec.name], spec, axes[spec.name])
        if spec.name in axes
        else first[0][spec.name]
        for spec in specs
    }
    if any(halves[name].shape != value.shape for name, value in first[0].items()):
        yield Probe(what="a sample of half the size", feed=halves)


def made_up_samples(model: Model, feeding: Feeding, folder: Path) -> Samples:
    """One made-up sample that the model takes, in files of a folder.

    Raises:
        UserError: it takes none of those that are tried; says why.
    """
    refused = ""
    for probe in _made_up(model.signature, feeding, seed=0, sizes=(*_SIZES, *_LARGER)):
        made = next(iter(outputs(model, [probe.feed])))
        if not isinstance(made, str):
            return _as_samples(probe.feed, folder)
        refused = refused or made
    raise UserError(
        f"{model.given} runs on no made-up input: {refused}",
        hint="give samples, or sizes of free dimensions (--dims NAME=SIZE)",
    )


def _as_samples(feed: Arrays, folder: Path) -> Samples:
    columns = []
    for number, (name, value) in enumerate(feed.items()):
        path = folder / str(number)
        path.write_bytes(np.ascontiguousarray(value).tobytes())
        columns.append(Column(name, str(path), 0, value.dtype.name, (1, *value.shape), WHOLE))
    return Samples(tuple(columns))


def expected_probes(
    model: Model, samples: Samples | Sequence[Samples] | None, unseen: Sequence[Samples] = ()
) -> int:
    """About how many probes there will be; fewer where a model takes several samples at once."""
    if samples is None:
        return len(_SIZES)
    most = _count(model)
    return min(count_of(parts_of(samples)), most) + min(count_of(unseen), most) + 1


def _count(model: Model) -> int:
    return _SAMPLES_OF_LARGE if model.bytes > _LARGE_BYTES else _SAMPLES


def _real(model: Model, parts: Sequence[Samples], tensors: Sequence[Tensor]) -> Iterator[Probe]:
    try:
        for part in spread(parts, _count(model)):
            for batch in batches(part, tensors, batch_size(part, tensors) or 1):
                yield Probe(
                    what=f"sample {part.first + batch.start}",
                    feed=batch.inputs,
                    rows=batch.rows,
                    batch=batch.size,
                )
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _halved(value: NDArray[np.generic], spec: TensorSpec, batch: int) -> NDArray[np.generic]:
    """The first half along every free axis but the batch's."""
    free = [axis for axis, d in enumerate(spec.shape) if axis != batch and not isinstance(d, int)]
    cuts = [slice(None)] * value.ndim
    for axis in free:
        cuts[axis] = slice(max(value.shape[axis] // 2, 1))
    return np.ascontiguousarray(value[tuple(cuts)])


def _made_up(
    signature: Signature, feeding: Feeding, seed: int, sizes: Sequence[int] = _SIZES
) -> Iterator[Probe]:
    """Normal values for floats, zeros for integers, which may be indices, and the constants."""
    specs = [spec for spec in signature.inputs if spec.name not in feeding.constants]
    axes = {spec.name: feeding.axis(spec, signature) for spec in specs}
    # Without a word on an input that has no axis it may be the same for all samples, as a rate is.
    counted = [s for s in specs if axes[s.name] >= 0 and axes[s.name] < len(s.shape)]
    free_batch = bool(counted) and all(
        not isinstance(spec.shape[axes[spec.name]], int) for spec in counted
    )
    free = {name for _, _, name in feeding.free_axes(signature)} - feeding.dims.keys()
    for size in sizes if free else sizes[:1]:
        for batch in (1, _TOGETHER) if free_batch else (1,):
            rng = np.random.default_rng(seed)
            told = dict.fromkeys(free, size) | dict(feeding.dims)
            feed = {spec.name: _values(spec, batch, told, rng) for spec in specs}
            yield Probe(what="made-up inputs", feed=feed | dict(feeding.constants), batch=batch)


def _values(
    spec: TensorSpec, batch: int, sizes: Mapping[str, int], rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = tuple(
        d if isinstance(d, int) else sizes.get(spec.dimension(axis), batch)
        for axis, d in enumerate(spec.shape)
    )
    if np.dtype(spec.dtype).kind == "f":
        return rng.standard_normal(shape, np.float32).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
