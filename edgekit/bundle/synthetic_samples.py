"""Synthetic samples of an input, drawn from statistics over all samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.sample_statistics import (
    FEWEST_SAMPLES,
    Array,
    CodeStatistics,
    InputStatistics,
    ValueStatistics,
    measure_frequencies,
    scale_to_unit,
)

# Draws for each position until a code is valid there.
_TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Look:
    """Changes of the statistics of measured values.

    Attributes:
        contrast: Factor of the deviations from the mean.
        smoothing: Exponent of the frequency by which amplitudes are divided.
    """

    contrast: float = 1.0
    smoothing: float = 0.0


def draw_samples(
    found: InputStatistics, count: int, rng: np.random.Generator, look: Look
) -> NDArray[Any]:
    """Draw samples of an input.

    Args:
        found: Statistics of the input.
        count: Number of samples.
        rng: Source of random numbers.
        look: Changes of the statistics.
    """
    if isinstance(found, CodeStatistics):
        return _draw_codes(found, count, rng)
    return np.stack([_draw_values(found, rng, look) for _ in range(count)])


def _draw_values(found: ValueStatistics, rng: np.random.Generator, look: Look) -> NDArray[Any]:
    """Draw a random field with the spectrum, the moments and the limits of the samples."""
    field = rng.standard_normal(found.shape)
    if found.spectrum is not None:
        frequencies = measure_frequencies(found.shape, found.smooth)
        spectrum = scale_to_unit(found.spectrum / frequencies**look.smoothing)
        waves = np.fft.fftn(field, axes=found.smooth) * spectrum
        field = np.fft.ifftn(waves, axes=found.smooth).real
    if found.mixing is not None:
        field = _mix_channels(field, found.mixing, found.smooth)
    values = np.clip(found.mean + look.contrast * found.std * field, found.low, found.high)
    whole = found.is_whole | (found.dtype.kind in "iu")
    rounded = np.clip(np.rint(values), np.ceil(found.low), np.floor(found.high))
    return np.where(whole, rounded, values).astype(found.dtype)


def _mix_channels(field: Array, mixing: Array, smooth: tuple[int, ...]) -> Array:
    places = [axis for axis in range(field.ndim) if axis not in smooth]
    front = range(len(places))
    moved = np.moveaxis(field, places, front)
    mixed = (mixing @ moved.reshape(len(mixing), -1)).reshape(moved.shape)
    return np.moveaxis(mixed, front, places)


def _draw_codes(found: CodeStatistics, count: int, rng: np.random.Generator) -> NDArray[Any]:
    size = int(np.prod(found.shape, dtype=np.int64))
    low, high = (np.broadcast_to(limit, (size,)) for limit in (found.low, found.high))
    if high.max(initial=0) - low.min(initial=0) <= 1:
        drawn = _draw_flags(found, low, high, count, rng)
    else:
        drawn = rng.integers(low, high, size=(count, size), endpoint=True)
        drawn = _replace_by_shared(found, drawn, low, high, rng)
        for place, (codes, shares) in enumerate(found.frequent):
            if len(codes):
                _replace_by_frequent(drawn[:, place], codes, shares, rng)
    return drawn.reshape(count, *found.shape).astype(found.dtype)


def _draw_flags(
    found: CodeStatistics,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw flags by one threshold for each sample, so that a mask ends at one position.

    Without shares of each position all flags are set.
    """
    if not found.frequent:
        return np.broadcast_to(high, (count, len(high)))
    shares = np.array(
        [
            shares[codes == top].sum() if len(codes) else 1.0
            for (codes, shares), top in zip(found.frequent, high, strict=True)
        ]
    )
    return np.where(shares > rng.uniform(size=(count, 1)), high, low)


def _replace_by_shared(
    found: CodeStatistics,
    drawn: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Replace codes by such as enough samples have, where these are valid."""
    if found.pool is None or len(found.pool[0]) < FEWEST_SAMPLES:
        return drawn
    codes, shares = found.pool
    for _ in range(_TRIES):
        picked = rng.choice(codes, size=drawn.shape, p=shares / shares.sum())
        drawn = np.where((picked >= low) & (picked <= high), picked, drawn)
    return drawn


def _replace_by_frequent(
    drawn: NDArray[np.int64], codes: NDArray[np.int64], shares: Array, rng: np.random.Generator
) -> None:
    """Replace codes of one position by its frequent ones, as often as the samples have them."""
    places = np.searchsorted(np.cumsum(shares), rng.uniform(size=len(drawn)), side="right")
    chosen = places < len(codes)
    drawn[chosen] = codes[places[chosen]]
