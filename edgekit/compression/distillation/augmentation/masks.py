"""Masks of random regions: cutout, and the time and frequency masks of SpecAugment (Park 2019)."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.changes import InputFunction
from edgekit.compression.distillation.augmentation.input_layouts import Floats, InputLayout

_LARGEST_HOLE = 0.4
_LARGEST_BAND = 0.2


def cut_out(values: Floats, _: InputLayout, rng: Generator, strength: float) -> Floats:
    """Fill a random rectangle of each image with the mean of the image (DeVries 2017)."""
    sizes = rng.uniform(0, _LARGEST_HOLE * strength, (2, len(values)))
    down = draw_bands(values.shape[-2], sizes[0], rng)
    across = draw_bands(values.shape[-1], sizes[1], rng)
    return _fill(values, down[:, :, None] & across[:, None, :])


def mask_along(axis: int) -> InputFunction:
    """Return a function that fills a random band along an axis with the mean of the sample."""

    def mask(values: Floats, _: InputLayout, rng: Generator, strength: float) -> Floats:
        sizes = rng.uniform(0, _LARGEST_BAND * strength, len(values))
        bands = draw_bands(values.shape[axis], sizes, rng)
        return _fill(values, bands[:, :, None] if axis == -2 else bands[:, None, :])

    return mask


def draw_bands(size: int, shares: NDArray[np.floating], rng: Generator) -> NDArray[np.bool_]:
    """Draw a band of given share for each sample: [N, size], True inside."""
    lengths = np.rint(shares * size)
    starts = np.floor(rng.random(len(shares)) * (size - lengths + 1))
    places = np.arange(size)
    inside: NDArray[np.bool_] = (places >= starts[:, None]) & (places < (starts + lengths)[:, None])
    return inside


def _fill(values: Floats, inside: NDArray[np.bool_]) -> Floats:
    mean = values.mean(axis=(2, 3), keepdims=True)
    return np.where(inside[:, None], mean, values)
