"""Feeds for the comparison of two models: samples, variants of samples, and made-up inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data.input_settings import WHOLE, Feeding
from edgekit.data.subsets import count_samples, select_spread, to_parts
from edgekit.errors import UserError
from edgekit.model import Model, Signature, TensorSpec
from edgekit.onnx_graph.runs.activations import to_agent_tensor
from edgekit.onnx_graph.runs.model_outputs import Arrays, iter_outputs
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import find_batch_size, iter_batches
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Column, Samples

# Number of samples to compare; large models are slow, so they get fewer.
_SAMPLES = 16
_SAMPLES_OF_LARGE = 8
_LARGE_BYTES = 64 << 20
_TOGETHER = 3
# Sizes to try for unknown free dimensions; the original may refuse some of them.
_SIZES = (64, 16, 1)
_LARGER = (1024, 16000)  # for models with reflection padding, as before a spectrogram


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Feed of ``batch`` samples to both models.

    ``rows`` of them are real samples; 0 in a variant, which the original may refuse. ``judges`` is
    false for samples that the result was fitted to, where there are others.
    """

    what: str
    feed: Arrays
    rows: int = 0
    batch: int = 1
    judges: bool = True


def choose_narrower(before: Model, after: Model) -> Model:
    """Return the model with the more fixed sizes, which decides the shapes that both can be fed."""
    pairs = zip(before.signature.inputs, after.signature.inputs, strict=False)
    fixes = any(
        isinstance(now, int) and not isinstance(was, int)
        for old, new in pairs
        for was, now in zip(old.shape, new.shape, strict=False)
    )
    return after if before.format != after.format and fixes else before


def iter_probes(
    model: Model,
    samples: Samples | Sequence[Samples] | None,
    *,
    unseen: Sequence[Samples] = (),
    seed: int,
    feeding: Feeding | None = None,
) -> Iterator[Probe]:
    """Yield feeds: calibration samples and variants of them, or without any, made-up inputs.

    Where the batch is free, one variant has three samples at once; where other dimensions are free,
    one has half the size along each.

    Args:
        model: the model to feed.
        samples: real samples.
        unseen: held-out samples, which judge instead of ``samples``; they come first.
        seed: seed of the made-up inputs.
        feeding: input settings of edgekit.toml, for the made-up inputs.

    Raises:
        UserError: the samples do not fit the inputs of the model.
    """
    if samples is None:
        yield from _iter_made_up(model.signature, feeding or Feeding(), seed)
        return
    specs = model.signature.inputs
    tensors = tuple(to_agent_tensor(spec) for spec in specs)
    seen = to_parts(samples)
    first: list[Arrays] = []
    for parts in (unseen, seen) if unseen else (seen,):
        for probe in _iter_real(model, parts, tensors):
            if len(first) < _TOGETHER:
                first.append(probe.feed)
            yield replace(probe, judges=parts is unseen or not unseen)
    axes = {column.name: column.axis for column in seen[0].columns}
    if find_batch_size(seen[0], tensors) is None:
        alike = [feed for feed in first if _has_shapes(feed, first[0])]
        repeated = (alike * _TOGETHER)[:_TOGETHER]
        joined = {
            name: np.concatenate([feed[name] for feed in repeated], axes[name])
            if name in axes
            else value
            for name, value in first[0].items()
        }
        yield Probe(what=f"{_TOGETHER} samples at once", feed=joined, batch=_TOGETHER)
    halves = {
        spec.name: _halve(first[0][spec.name], spec, axes[spec.name])
        if spec.name in axes
        else first[0][spec.name]
        for spec in specs
    }
    if any(halves[name].shape != value.shape for name, value in first[0].items()):
        yield Probe(what="a sample cut to half its size", feed=halves)


def _has_shapes(feed: Arrays, other: Arrays) -> bool:
    return all(feed[name].shape == value.shape for name, value in other.items())


def write_made_up_samples(model: Model, feeding: Feeding, folder: Path) -> Samples:
    """Write one made-up sample that the model accepts into files of a folder.

    Raises:
        UserError: the model accepts none of the sizes that are tried; the text gives the reason.
    """
    refused = ""
    for probe in _iter_made_up(model.signature, feeding, seed=0, sizes=(*_SIZES, *_LARGER)):
        made = next(iter(iter_outputs(model, [probe.feed])))
        if not isinstance(made, str):
            return _as_samples(probe.feed, folder)
        refused = refused or made
    raise UserError(
        f"{model.display_name} fails on every random input that was tried: {refused}",
        hint="give samples with --data, or the sizes of free dimensions (--dims NAME=SIZE)",
    )


def _as_samples(feed: Arrays, folder: Path) -> Samples:
    columns = []
    for number, (name, value) in enumerate(feed.items()):
        path = folder / str(number)
        path.write_bytes(np.ascontiguousarray(value).tobytes())
        columns.append(Column(name, str(path), 0, value.dtype.name, (1, *value.shape), WHOLE))
    return Samples(tuple(columns))


def estimate_probe_count(
    model: Model, samples: Samples | Sequence[Samples] | None, unseen: Sequence[Samples] = ()
) -> int:
    """Estimate the number of probes; there are fewer where a model takes several samples."""
    if samples is None:
        return len(_SIZES)
    most = _get_sample_count(model)
    return min(count_samples(to_parts(samples)), most) + min(count_samples(unseen), most) + 1


def _get_sample_count(model: Model) -> int:
    return _SAMPLES_OF_LARGE if model.bytes > _LARGE_BYTES else _SAMPLES


def _iter_real(
    model: Model, parts: Sequence[Samples], tensors: Sequence[Tensor]
) -> Iterator[Probe]:
    try:
        for part in select_spread(parts, _get_sample_count(model)):
            for batch in iter_batches(part, tensors, find_batch_size(part, tensors) or 1):
                yield Probe(
                    what=f"sample {part.first + batch.start}",
                    feed=batch.inputs,
                    rows=batch.rows,
                    batch=batch.size,
                )
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _halve(value: NDArray[np.generic], spec: TensorSpec, batch: int) -> NDArray[np.generic]:
    """Return the first half along every free axis except the batch."""
    free = [axis for axis, d in enumerate(spec.shape) if axis != batch and not isinstance(d, int)]
    if not free:
        return value
    cuts = [slice(None)] * value.ndim
    for axis in free:
        cuts[axis] = slice(max(value.shape[axis] // 2, 1))
    return np.ascontiguousarray(value[tuple(cuts)])


def _iter_made_up(
    signature: Signature, feeding: Feeding, seed: int, sizes: Sequence[int] = _SIZES
) -> Iterator[Probe]:
    """Yield made-up inputs: normal floats, zeros for integers (possible indices), constants."""
    specs = [spec for spec in signature.inputs if spec.name not in feeding.constants]
    axes = {spec.name: feeding.axis(spec, signature) for spec in specs}
    # An input without a sample axis, such as a rate, may be the same for all samples.
    counted = [s for s in specs if axes[s.name] >= 0 and axes[s.name] < len(s.shape)]
    free_batch = bool(counted) and all(
        not isinstance(spec.shape[axes[spec.name]], int) for spec in counted
    )
    free = {name for _, _, name in feeding.iter_free_axes(signature)} - feeding.dims.keys()
    for size in sizes if free else sizes[:1]:
        for batch in (1, _TOGETHER) if free_batch else (1,):
            rng = np.random.default_rng(seed)
            told = dict.fromkeys(free, size) | dict(feeding.dims)
            feed = {spec.name: _make_up_value(spec, batch, told, rng) for spec in specs}
            yield Probe(what="random inputs", feed=feed | dict(feeding.constants), batch=batch)


def _make_up_value(
    spec: TensorSpec, batch: int, sizes: Mapping[str, int], rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = tuple(
        d if isinstance(d, int) else sizes.get(spec.dimension(axis), batch)
        for axis, d in enumerate(spec.shape)
    )
    if np.dtype(spec.dtype).kind == "f":
        return rng.standard_normal(shape, np.float32).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
