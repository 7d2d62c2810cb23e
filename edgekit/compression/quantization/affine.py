"""Affine quantization: scale and zero point of a range, and the integers of a weight.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; ONNX QuantizeLinear for rounding (half to even).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# A smaller scale is a denormal, whose reciprocal is infinite; dead channels get another scale.
_TINY = np.float32(1e-30)


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Parameters of unsigned 8-bit quantization: ``real = (integer - zero_point) * scale``."""

    scale: np.float32
    zero_point: np.uint8


def compute_unsigned_affine(low: float, high: float) -> Affine:
    """Compute uint8 parameters whose range covers ``low``, ``high`` and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    if scale < _TINY:
        scale = np.float32(1.0)
    return Affine(scale=scale, zero_point=np.uint8(np.clip(np.rint(-low / scale), 0, 255)))


# Largest integer of a weight, by its bits. x86 processors without VNNI add pairs of
# uint8 x int8 products in 16 bits (pmaddubsw), which 2 x 255 x 64 never overflows.
# Source: onnxruntime documentation, "Quantize ONNX models", on reduce_range.
LARGEST = {7: 64, 8: 127}


def get_largest_integer(bits: int) -> int:
    """Return the largest magnitude of a signed weight of ``bits`` bits; the grid is symmetric."""
    return LARGEST[bits] if bits in LARGEST else (1 << (bits - 1)) - 1


def compute_symmetric_scales(weight: Floats, axis: int, largest: int = LARGEST[8]) -> Floats:
    """Compute one int8 scale per slice along ``axis``, so that its peak becomes ``largest``.

    Args:
        weight: the float weight.
        axis: axis of the output channels.
        largest: magnitude of the largest integer.

    Returns:
        Scales, one for each position of ``axis``; slices of zeros get 1 / ``largest``.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peak = np.abs(weight).max(axis=others) if weight.size else np.zeros(weight.shape[axis])
    scales = (peak / largest).astype(np.float32)
    return np.where(scales < _TINY, np.float32(1 / largest), scales).astype(np.float32)


def to_int8(
    weight: Floats, scales: Floats, axis: int, largest: int = LARGEST[8]
) -> NDArray[np.int8]:
    """Round each weight to the nearest int8 multiple of its scale, in [-largest, largest].

    Args:
        weight: the float weight.
        scales: one scale for each position of ``axis``.
        axis: axis of the output channels.
        largest: magnitude of the largest integer.
    """
    shape = [1] * weight.ndim
    shape[axis] = -1
    integers = np.rint(weight / scales.reshape(shape))
    clipped: NDArray[np.int8] = np.clip(integers, -largest, largest).astype(np.int8)
    return clipped
