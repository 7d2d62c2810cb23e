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


def compute_coordinates(how: Resizing) -> Floats:
    """Compute the input coordinate of each output entry.

    Source: ONNX operators, Resize.
    """
    at = np.arange(how.after, dtype=np.float64)
    length = how.scale * how.before
    last = how.before - 1
    if how.transformation == "align_corners":
        return at * last / (length - 1) if length != 1 else at * 0
    if how.transformation == "asymmetric":
        return at / how.scale
    if how.transformation == "tf_half_pixel_for_nn":
        return (at + 0.5) / how.scale
    if how.transformation == "tf_crop_and_resize":
        start, end = how.region
        if length == 1:
            return at + 0.5 * (start + end) * last
        return start * last + at * (end - start) * last / (length - 1)
    moved = 0.0
    if how.transformation == "half_pixel_symmetric":
        moved = how.before / 2 * (1 - how.after / length)
    if how.transformation == "pytorch_half_pixel" and length == 1:
        return at * 0
    return moved + (at + 0.5) / how.scale - 0.5


def find_outside(how: Resizing) -> NDArray[np.bool_]:
    """Mark output entries that lie outside the input (only with tf_crop_and_resize)."""
    at = compute_coordinates(how)
    found: NDArray[np.bool_] = (at < 0) | (at > how.before - 1)
    return found & (how.transformation == "tf_crop_and_resize")


def compute_nearest(how: Resizing, mode: str) -> NDArray[np.int64]:
    """Return the index of the input entry for each output entry, by nearest_mode.

    Args:
        how: resizing of the axis.
        mode: nearest_mode.
    """
    rounding: dict[str, Callable[[Floats], Floats]] = {
        "round_prefer_floor": lambda at: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda at: np.floor(at + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    at = rounding[mode](compute_coordinates(how))
    return np.clip(at, 0, how.before - 1).astype(np.int64)


def compute_weights(how: Resizing, mode: str) -> Floats:
    """Compute the matrix (after, before) of interpolation weights, linear or cubic.

    Args:
        how: resizing of the axis.
        mode: ``linear`` or ``cubic``.
    """
    at = compute_coordinates(how)
    low = np.ceil(at) - 1  # left neighbor, chosen so that shares lie in (0, 1]
    share = at - low
    scale = min(how.scale, 1.0) if how.antialias else 1.0
    radius = (1 if mode == "linear" else 2) / scale
    start = int(np.floor(-radius) + 1)
    made = np.zeros((how.after, how.before))
    rows = np.arange(how.after)
    total = np.zeros(how.after)
    for offset in range(start, 2 - start):
        away = np.abs(offset - share) * scale
        weight = _evaluate_tent(away) if mode == "linear" else _evaluate_cubic(away, how.cubic_a)
        place = low + offset
        if how.exclude_outside:
            weight = weight * ((place >= 0) & (place < how.before))
        np.add.at(made, (rows, np.clip(place, 0, how.before - 1).astype(int)), weight)
        total += weight
    normal = made / total[:, None] if how.exclude_outside or how.antialias else made
    result: Floats = normal * ~find_outside(how)[:, None]
    return result


def _evaluate_tent(away: Floats) -> Floats:
    return np.clip(1 - away, 0, None)


def _evaluate_cubic(away: Floats, a: float) -> Floats:
    """Evaluate Keys' cubic convolution kernel at distances from its center."""
    near = ((a + 2) * away - (a + 3)) * away**2 + 1
    far = ((a * away - 5 * a) * away + 8 * a) * away - 4 * a
    return np.where(away <= 1, near, np.where(away < 2, far, 0.0))
