"""Changes of the values of images, spectrograms and signals: brightness, contrast, gain, noise."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from edgekit.compression.distillation.augmentation.changes import draw
from edgekit.compression.distillation.augmentation.input_layouts import Floats, InputLayout

_BRIGHTNESS = 0.15
_CONTRAST = 0.3
_COLOR = 0.1
_GAIN_DECIBELS = 6.0
_NOISE = 0.1


def change_brightness(
    values: Floats, layout: InputLayout, rng: Generator, strength: float
) -> Floats:
    """Add a number to each sample, relative to the range of values."""
    return values + draw(values, rng, -1, 1) * (strength * _BRIGHTNESS * _get_range(layout))


def change_contrast(values: Floats, _: InputLayout, rng: Generator, strength: float) -> Floats:
    """Multiply the distance of values from the mean of the sample."""
    mean = values.mean(axis=tuple(range(2, values.ndim)), keepdims=True)
    most = _CONTRAST * strength
    factors = draw(values, rng, 1 - most, 1 + most)
    changed: Floats = values * factors + mean * (1 - factors)
    return changed


def change_color(values: Floats, layout: InputLayout, rng: Generator, strength: float) -> Floats:
    """Add another number to each channel."""
    offsets = draw(values, rng, -1, 1, values.shape[1])
    return values + offsets * (strength * _COLOR * _get_range(layout))


def change_gain(values: Floats, _: InputLayout, rng: Generator, strength: float) -> Floats:
    """Make signals louder or quieter by up to 6 dB."""
    most = _GAIN_DECIBELS * strength
    return values * 10 ** (draw(values, rng, -most, most) / 20)


def add_noise(values: Floats, layout: InputLayout, rng: Generator, strength: float) -> Floats:
    """Add Gaussian noise of up to a tenth of the standard deviation."""
    levels = draw(values, rng, 0, _NOISE * strength) * layout.spread
    noise = rng.standard_normal(values.shape, dtype=np.float32)
    return values + levels.astype(values.dtype) * noise


def _get_range(layout: InputLayout) -> Floats:
    return np.asarray(layout.high - layout.low, dtype=np.float32)
