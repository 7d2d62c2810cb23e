"""Interpolation weights and source indices for resizing along one axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """Parameters for resizing one axis, named as in ONNX's Resize.

    Args:
        before: size of the axis in the input.
        after: size of the axis in the output.
        scale: ``after / before``, or the given scale from which ``after`` was rounded.
        transformation: coordinate_transformation_mode.
        region: start and end of the input region, as shares of its size (tf_crop_and_resize).
        cubic_a: cubic_coeff_a.
        exclude_outside: give entries outside the input no weight.
        antialias: widen the filter when the axis shrinks.
    """

    before: int
    after: int
    scale: float
    transformation: str
    region: tuple[float, float] = (0.0, 1.0)
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def compute_coordinates(resizing: Resizing) -> Floats:
    """Compute the input coordinate of each output entry.

    Source: ONNX operators, Resize.
    """
    index = np.arange(resizing.after, dtype=np.float64)
    length = resizing.scale * resizing.before
    last = resizing.before - 1
    if resizing.transformation == "align_corners":
        return index * last / (length - 1) if length != 1 else index * 0
    if resizing.transformation == "asymmetric":
        return index / resizing.scale
    if resizing.transformation == "tf_half_pixel_for_nn":
        return (index + 0.5) / resizing.scale
    if resizing.transformation == "tf_crop_and_resize":
        start, end = resizing.region
        if length == 1:
            return index + 0.5 * (start + end) * last
        return start * last + index * (end - start) * last / (length - 1)
    offset = 0.0
    if resizing.transformation == "half_pixel_symmetric":
        offset = resizing.before / 2 * (1 - resizing.after / length)
    if resizing.transformation == "pytorch_half_pixel" and length == 1:
        return index * 0
    return offset + (index + 0.5) / resizing.scale - 0.5


def find_outside(resizing: Resizing) -> NDArray[np.bool_]:
    """Mark output entries that lie outside the input (only with tf_crop_and_resize)."""
    coordinates = compute_coordinates(resizing)
    outside: NDArray[np.bool_] = (coordinates < 0) | (coordinates > resizing.before - 1)
    return outside & (resizing.transformation == "tf_crop_and_resize")


def compute_nearest(resizing: Resizing, mode: str) -> NDArray[np.int64]:
    """Return the index of the input entry for each output entry, by nearest_mode.

    Args:
        resizing: resizing of the axis.
        mode: nearest_mode.
    """
    rounding: dict[str, Callable[[Floats], Floats]] = {
        "round_prefer_floor": lambda at: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda at: np.floor(at + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    coordinates = rounding[mode](compute_coordinates(resizing))
    return np.clip(coordinates, 0, resizing.before - 1).astype(np.int64)


def compute_weights(resizing: Resizing, mode: str) -> Floats:
    """Compute the matrix (after, before) of interpolation weights, linear or cubic.

    Args:
        resizing: resizing of the axis.
        mode: ``linear`` or ``cubic``.
    """
    coordinates = compute_coordinates(resizing)
    left_neighbor = np.ceil(coordinates) - 1  # left neighbor, chosen so that shares lie in (0, 1]
    share = coordinates - left_neighbor
    scale = min(resizing.scale, 1.0) if resizing.antialias else 1.0
    radius = (1 if mode == "linear" else 2) / scale
    start = int(np.floor(-radius) + 1)
    weights = np.zeros((resizing.after, resizing.before))
    rows = np.arange(resizing.after)
    total = np.zeros(resizing.after)
    for offset in range(start, 2 - start):
        distance = np.abs(offset - share) * scale
        weight = (
            _evaluate_tent(distance)
            if mode == "linear"
            else _evaluate_cubic(distance, resizing.cubic_a)
        )
        neighbor = left_neighbor + offset
        if resizing.exclude_outside:
            weight = weight * ((neighbor >= 0) & (neighbor < resizing.before))
        np.add.at(weights, (rows, np.clip(neighbor, 0, resizing.before - 1).astype(int)), weight)
        total += weight
    normal = weights / total[:, None] if resizing.exclude_outside or resizing.antialias else weights
    result: Floats = normal * ~find_outside(resizing)[:, None]
    return result


def _evaluate_tent(distance: Floats) -> Floats:
    return np.clip(1 - distance, 0, None)


def _evaluate_cubic(distance: Floats, a: float) -> Floats:
    """Evaluate Keys' cubic convolution kernel at distances from its center."""
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, inner, np.where(distance < 2, outer, 0.0))
