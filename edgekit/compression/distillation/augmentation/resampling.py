"""Shifts, flips and zoom of samples along their axes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.changes import InputFunction
from edgekit.compression.distillation.augmentation.input_layouts import Floats, InputLayout

_LARGEST_SHIFT = 1 / 8
_LARGEST_ZOOM = 0.15


def shift_along(*axes: int) -> InputFunction:
    """Return a function that shifts each sample along axes, with reflected borders."""

    def shift(values: Floats, _: InputLayout, rng: Generator, strength: float) -> Floats:
        for axis in axes:
            size = values.shape[axis]
            most = min(max(int(size * _LARGEST_SHIFT * strength), 1), size - 1)
            offsets = rng.integers(-most, most + 1, len(values))
            values = _shift(values, axis, offsets)
        return values

    return shift


def flip_horizontally(values: Floats, _: InputLayout, __: Generator, ___: float) -> Floats:
    """Mirror images left to right."""
    return values[..., ::-1]


def zoom(values: Floats, _: InputLayout, rng: Generator, strength: float) -> Floats:
    """Enlarge or shrink each image by up to 15 %, with bilinear interpolation."""
    most = _LARGEST_ZOOM * strength
    factors = rng.uniform(1 - most, 1 + most, len(values))
    count, channels, height, width = values.shape
    across = _build_interpolation(factors, width).astype(values.dtype)
    down = _build_interpolation(factors, height).astype(values.dtype)
    wide = (values.reshape(count, channels * height, width) @ across).reshape(values.shape)
    return down.transpose(0, 2, 1)[:, None] @ wide


def _shift(values: Floats, axis: int, offsets: NDArray[np.integer]) -> Floats:
    """Shift samples by whole places; the values that move in are reflections of the border."""
    result = np.empty_like(values)
    source, target = np.moveaxis(values, axis, -1), np.moveaxis(result, axis, -1)
    for sample, shifted, offset in zip(source, target, offsets.tolist(), strict=True):
        far = sample.shape[-1] - abs(offset)
        if offset >= 0:
            shifted[..., :far] = sample[..., offset:]
            shifted[..., far:] = sample[..., far - 1 : -1][..., ::-1]
        else:
            shifted[..., -far:] = sample[..., :far]
            shifted[..., :-far] = sample[..., 1 : 1 - offset][..., ::-1]
    return result


def _reflect(places: NDArray[np.integer], size: int) -> NDArray[np.integer]:
    """Reflect places beyond the ends, without repeating the end itself."""
    period = max(2 * (size - 1), 1)
    places = np.abs(places) % period
    return np.where(places >= size, period - places, places)


def _build_interpolation(factors: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """Build matrices [N, size, size] that enlarge a row of values about its center."""
    center = (size - 1) / 2
    places = center + (np.arange(size) - center) / factors[:, None]
    before = np.floor(places).astype(np.intp)
    part = places - before
    matrices = np.zeros((len(factors), size, size))
    samples, outputs = np.arange(len(factors))[:, None], np.arange(size)
    matrices[samples, _reflect(before, size), outputs] = 1 - part
    matrices[samples, _reflect(before + 1, size), outputs] += part
    return matrices
