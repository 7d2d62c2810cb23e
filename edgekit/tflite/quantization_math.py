"""Arithmetic of quantization parameters: quantized constants, and comparison of scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.tflite.ir import Array, Quantization, Tensor, constant

# Limits of a kernel's input scale divided by its output scale. Beyond them the fixed-point
# multipliers of TFLite and XNNPACK overflow: they refuse to load, or abort.
SMALLEST_RATIO, LARGEST_RATIO = 2.0**-31, 2.0**8
_SMALLEST = float(np.finfo(np.float32).tiny)


def has_one_scale(tensor: Tensor) -> bool:
    """Return whether a tensor has per-tensor quantization (one scale)."""
    return tensor.quantization is not None and tensor.quantization.scales.size == 1


def is_same_quantization(one: Quantization | None, other: Quantization | None) -> bool:
    """Return whether two quantizations map integers to the same real values."""
    if one is None or other is None:
        return one is other
    return (
        np.array_equal(one.scales, other.scales)
        and np.array_equal(one.zero_points, other.zero_points)
        and (one.axis == other.axis or one.scales.size == 1)
    )


def can_requantize(scales: Sequence[Quantization | None], output: Quantization | None) -> bool:
    """Return whether a kernel can requantize from the given scales to the scale of its output.

    Args:
        scales: Quantization of its inputs, or of its accumulator.
        output: Quantization of its output.
    """
    if output is None:
        return False
    ratios = [
        quantization.scales.astype(np.float64) / output.scales.astype(np.float64)
        for quantization in scales
        if quantization is not None
    ]
    return all(bool(((r >= SMALLEST_RATIO) & (r < LARGEST_RATIO)).all()) for r in ratios)


def multiply_scales(*scales: Quantization | None) -> Quantization:
    """Return the quantization of products: the product of per-tensor scales, with zero point 0."""
    total = np.ones(1)
    for quantization in scales:
        if quantization is not None:
            total = total * quantization.scales
    return Quantization(scales=total.astype(np.float32), zero_points=np.zeros(1, np.int64))


def broadcast_along_axis(values: Array, axis: int, rank: int) -> Array:
    """Reshape per-axis parameters so that they broadcast along an axis; one becomes a scalar."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def dequantize_constant(tensor: Tensor) -> Array:
    """Dequantize a constant to float64.

    Raises:
        ValueError: The tensor is no quantized constant.
    """
    if tensor.data is None or tensor.quantization is None:
        raise ValueError(f"{tensor.name}: not stored as quantized integers")
    quantization, rank = tensor.quantization, tensor.data.ndim
    zero_points = broadcast_along_axis(quantization.zero_points, quantization.axis, rank)
    scales = broadcast_along_axis(quantization.scales.astype(np.float64), quantization.axis, rank)
    return np.asarray((tensor.data.astype(np.int64) - zero_points) * scales)


def quantize_reals(
    reals: Array, quantization: Quantization, dtype: str, *, name: str = "constant"
) -> Tensor:
    """Quantize real values to a constant: round half to even and clip to the range of the type."""
    scales = broadcast_along_axis(
        quantization.scales.astype(np.float64), quantization.axis, reals.ndim
    )
    zero_points = broadcast_along_axis(quantization.zero_points, quantization.axis, reals.ndim)
    bounds = np.iinfo(dtype)
    integers = np.rint(reals / scales) + zero_points
    return constant(
        name, np.clip(integers, bounds.min, bounds.max).astype(dtype), quantization=quantization
    )


def build_symmetric_quantization(most: float, dtype: str) -> Quantization:
    """Return the symmetric quantization that maps a magnitude to the type's largest integer."""
    scale = max(most / np.iinfo(dtype).max, _SMALLEST)
    return Quantization(scales=np.asarray([scale], np.float32), zero_points=np.zeros(1, np.int64))


def quantize_number(tensor: Tensor, value: float, dtype: str) -> Tensor:
    """Quantize a constant of one value so that the type's largest integer represents it exactly."""
    quantization = build_symmetric_quantization(abs(value) if value else 1.0, dtype)
    most = np.iinfo(dtype).max
    data = np.full(tensor.shape, most * int(np.sign(value)), dtype)
    return constant(tensor.name, data, quantization=quantization)
