"""Synthetic samples for models with too few samples: noise with the statistics of those given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.input_kinds import Array
from edgekit.compression.distillation.augmentation.input_layouts import InputLayout, find_layouts
from edgekit.compression.distillation.augmentation.tokens import TokenPlaces, find_token_places

Doubles = NDArray[np.float64]

# The covariance of more columns would take much memory.
_MOST_COLUMNS = 1024


@dataclass(frozen=True, kw_only=True)
class SyntheticSamples:
    """Samples made of noise, with a description that says so."""

    values: dict[str, Array]
    description: str


def synthesize(
    samples: Mapping[str, Array],
    *,
    axes: Mapping[str, int],
    constants: Collection[str],
    count: int,
    seed: int,
) -> SyntheticSamples:
    """Make samples from noise.

    Images, spectrograms and signals get the mean and covariance of the channels and the mean
    spectrum of the given samples; tables get the mean and covariance of the columns. Tokens are
    drawn at random. All other inputs are those of random samples.

    Args:
        samples: Given samples by input, at least one.
        axes: Sample axis by input; 0 if not given, negative where a sample is a whole input.
        constants: Inputs without a value for each sample, which are returned as they are.
        count: Number of samples to make; 1 where a sample is a whole input.
        seed: Seed of the noise.
    """
    layouts = find_layouts(samples, axes, constants)
    given = {each.name: each.to_rows(np.asarray(samples[each.name])) for each in layouts}
    available = len(next(iter(given.values()))) if given else 0
    rng = np.random.default_rng(seed)
    chosen = rng.integers(max(available, 1), size=count)
    rows = {name: values[chosen] for name, values in given.items()}
    for each in layouts:
        if each.is_numeric:
            rows[each.name] = _draw_numbers(each, given[each.name], rows[each.name], rng)
    for places in find_token_places(layouts, given):
        rows[places.name] = _draw_tokens(places, given, rows, rng)
    values = {
        each.name: each.from_rows(rows[each.name], np.asarray(samples[each.name]))
        for each in layouts
    }
    return SyntheticSamples(
        values={**samples, **values}, description=_describe(layouts, count, available)
    )


def _describe(layouts: Sequence[InputLayout], count: int, given: int) -> str:
    kinds = {each.kind for each in layouts}
    drawn = [
        *(["the mean, spread and spectrum"] if kinds & {"grid", "signal"} else []),
        *(["the mean and covariance of columns"] if "values" in kinds else []),
        *(["the tokens"] if "tokens" in kinds else []),
    ]
    kept = " and ".join(drawn) or "the values"
    return f"{count} synthetic samples: noise with {kept} of {given} given samples"


def _draw_numbers(layout: InputLayout, given: Array, chosen: Array, rng: Generator) -> Array:
    """Draw rows like the given ones; columns of categories are those of the chosen samples."""
    count = len(chosen)
    if layout.kind in ("grid", "signal"):
        return _draw_fields(given.astype(np.float64), count, rng)
    finite = np.isfinite(given)
    values = np.where(finite, given, 0).astype(np.float64)
    mean = values.sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    values = np.where(finite, values - mean, 0)
    noise = mean + _draw_columns(values.reshape(len(values), -1), count, rng).reshape(
        count, *values.shape[1:]
    )
    return np.where(layout.get_changeable(chosen), noise, chosen)


def _draw_fields(given: Doubles, count: int, rng: Generator) -> Doubles:
    """Draw noise with the spectrum and the covariance of channels of fields [N, C, ...]."""
    space = tuple(range(2, given.ndim))
    mean = given.mean(axis=(0, *space), keepdims=True)
    channels = np.moveaxis(given - mean, 1, 0).reshape(given.shape[1], -1)
    spread = np.maximum(given.std(axis=(0, *space), keepdims=True), np.finfo(float).tiny)
    power = np.mean(np.abs(np.fft.fftn((given - mean) / spread, axes=space)) ** 2, axis=(0, 1))
    power /= max(power.mean(), np.finfo(float).tiny)
    noise = np.fft.fftn(rng.standard_normal((count, *given.shape[1:])), axes=space)
    fields = np.fft.ifftn(noise * np.sqrt(power), axes=space).real
    root = _compute_root(channels @ channels.T / channels.shape[1])
    drawn: Doubles = mean + np.moveaxis(np.tensordot(root, fields, axes=(1, 1)), 0, 1)
    return drawn


def _draw_columns(centered: Doubles, count: int, rng: Generator) -> Doubles:
    """Draw noise with the covariance of columns, or with their spread where they are many."""
    columns = centered.shape[1]
    noise = rng.standard_normal((count, columns))
    drawn: Doubles
    if columns > _MOST_COLUMNS:
        drawn = noise * np.sqrt(np.mean(centered**2, axis=0))
    else:
        drawn = noise @ _compute_root(centered.T @ centered / len(centered))
    return drawn


def _compute_root(covariance: Doubles) -> Doubles:
    """Compute the symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    root: Doubles = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _draw_tokens(
    places: TokenPlaces, given: Mapping[str, Array], rows: Mapping[str, Array], rng: Generator
) -> Array:
    """Replace all tokens of rows by random ones; padding and special tokens stay."""
    pool = given[places.name][places.find_changeable(given)]
    free = places.find_changeable(rows)
    result = rows[places.name].copy()
    if pool.size:
        result[free] = rng.choice(pool, int(free.sum()))
    return result
