"""Reals as integers under a scale, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.bridge.graph import Array, Quantization, Tensor, constant

# Between the scale of what a kernel reads and of what it makes. Beyond it the fixed-point
# multipliers of TFLite and XNNPACK overflow: they refuse to load, or abort.
SMALLEST_RATIO, LARGEST_RATIO = 2.0**-31, 2.0**8
_SMALLEST = float(np.finfo(np.float32).tiny)


def one_scale(tensor: Tensor) -> bool:
    """Whether one scale holds for a whole tensor."""
    return tensor.quantization is not None and tensor.quantization.scales.size == 1


def equal_scales(one: Quantization | None, other: Quantization | None) -> bool:
    """Whether integers mean the same under both."""
    if one is None or other is None:
        return one is other
    return (
        np.array_equal(one.scales, other.scales)
        and np.array_equal(one.zero_points, other.zero_points)
        and (one.axis == other.axis or one.scales.size == 1)
    )


def within_reach(scales: Sequence[Quantization | None], made: Quantization | None) -> bool:
    """Whether a kernel can take integers under scales to integers under another.

    Args:
        scales: of what it reads, or of its sums.
        made: of what it makes.
    """
    if made is None:
        return False
    ratios = [
        given.scales.astype(np.float64) / made.scales.astype(np.float64)
        for given in scales
        if given is not None
    ]
    return all(bool(((r >= SMALLEST_RATIO) & (r < LARGEST_RATIO)).all()) for r in ratios)


def product(*scales: Quantization | None) -> Quantization:
    """The scale of products of integers under scales of one value each."""
    total = np.ones(1)
    for given in scales:
        if given is not None:
            total = total * given.scales
    return Quantization(scales=total.astype(np.float32), zero_points=np.zeros(1, np.int64))


def along_axis(values: Array, axis: int, rank: int) -> Array:
    """One value, or one for each index of an axis, in a shape that broadcasts."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def stored_reals(tensor: Tensor) -> Array:
    """What the integers of a constant stand for, as float64.

    Raises:
        ValueError: the tensor is no constant under a scale.
    """
    if tensor.data is None or tensor.quantization is None:
        raise ValueError(f"{tensor.name}: no stored integers under a scale")
    given, rank = tensor.quantization, tensor.data.ndim
    zero_points = along_axis(given.zero_points, given.axis, rank)
    scales = along_axis(given.scales.astype(np.float64), given.axis, rank)
    return np.asarray((tensor.data.astype(np.int64) - zero_points) * scales)


def as_integers(reals: Array, given: Quantization, dtype: str, *, name: str = "constant") -> Tensor:
    """A constant of the integers nearest to reals, halves to even, cut to the type's range."""
    scales = along_axis(given.scales.astype(np.float64), given.axis, reals.ndim)
    zero_points = along_axis(given.zero_points, given.axis, reals.ndim)
    bounds = np.iinfo(dtype)
    integers = np.rint(reals / scales) + zero_points
    return constant(
        name, np.clip(integers, bounds.min, bounds.max).astype(dtype), quantization=given
    )


def symmetric(most: float, dtype: str) -> Quantization:
    """The scale with zero point 0 under which a magnitude is the type's largest integer."""
    scale = max(most / np.iinfo(dtype).max, _SMALLEST)
    return Quantization(scales=np.asarray([scale], np.float32), zero_points=np.zeros(1, np.int64))


def exact_number(tensor: Tensor, value: float, dtype: str) -> Tensor:
    """A constant of one entry as the largest integer under a scale of its own."""
    given = symmetric(abs(value) if value else 1.0, dtype)
    most = np.iinfo(dtype).max
    data = np.full(tensor.shape, most * int(np.sign(value)), dtype)
    return constant(tensor.name, data, quantization=given)
