"""Kinds of model inputs, found from the dtype, shape and values of samples."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# "grid": images and spectrograms; "signal": long channels over time; "values": other numbers;
# "mask": integers of only 0 and 1; "fixed": never changed.
InputKind = Literal["grid", "signal", "tokens", "mask", "values", "fixed"]

_CHANNELS = (1, 2, 3, 4)
_LEAST_SIDE = 8
_LEAST_WAVEFORM = 1000
_LEAST_SIGNAL = 128
_LEAST_STEPS = 32
_MOST_SIGNAL_CHANNELS = 12
_LEAST_TOKENS = 8
_LEAST_LONG_TOKENS = 32
_LEAST_DISTINCT = 32
# Time series: neighbors correlate, and the means of the columns are nearly the same.
_LEAST_CORRELATION = 0.5
_MOST_SPREAD_OF_MEANS = 0.35


def find_kind(rows: Array) -> InputKind:
    """Find the kind of an input.

    Args:
        rows: Values of samples, which are stacked along the first axis.
    """
    if rows.size == 0 or rows.ndim < 1 or rows.dtype.kind not in "fiu":
        return "fixed"
    if rows.dtype.kind in "iu" and rows.dtype.itemsize > 1 and rows.ndim < 4:
        return _find_integer_kind(rows)
    if np.isfinite(rows).all():
        if rows.ndim == 4 and find_channel_axis(rows.shape) is not None:
            return "grid"
        if rows.ndim == 3:
            return _find_kind_of_two_axes(rows.shape)
        if rows.ndim == 2 and _is_signal(rows):
            return "signal"
    return "values" if rows.dtype.kind == "f" or rows.dtype.itemsize == 1 else "fixed"


def find_channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the channel axis of a batch of images, or None if it is not one."""
    for axis, sides in ((3, shape[1:3]), (1, shape[2:4])):
        if shape[axis] in _CHANNELS and min(sides) >= _LEAST_SIDE:
            return axis
    return None


def _find_kind_of_two_axes(shape: tuple[int, ...]) -> InputKind:
    short, long = sorted(shape[1:])
    if short <= _MOST_SIGNAL_CHANNELS and long >= _LEAST_WAVEFORM:
        return "signal"
    if short >= _LEAST_SIDE:
        return "grid"
    return "signal" if long >= _LEAST_STEPS else "values"


def _is_signal(rows: Array) -> bool:
    """Return whether the columns are steps in time, and not unrelated numbers."""
    steps = rows.shape[1]
    if steps < _LEAST_SIGNAL:
        return False
    values = rows.astype(np.float64)
    values -= values.mean()
    power = float(np.mean(values**2))
    if power == 0 or float(values.mean(axis=0).std()) > _MOST_SPREAD_OF_MEANS * power**0.5:
        # The mean of a few samples tells little about a column.
        return power > 0 and len(rows) < _LEAST_SIDE and steps >= _LEAST_WAVEFORM
    correlation = float(np.mean(values[:, 1:] * values[:, :-1])) / power
    return steps >= _LEAST_WAVEFORM or correlation >= _LEAST_CORRELATION


def _find_integer_kind(rows: Array) -> InputKind:
    if rows.min() >= 0 and rows.max() <= 1:
        return "mask"
    if rows.ndim != 2 or rows.shape[1] < _LEAST_TOKENS or _are_positions(rows):
        return "fixed"
    is_long = rows.shape[1] >= _LEAST_LONG_TOKENS
    return "tokens" if is_long or np.unique(rows).size >= _LEAST_DISTINCT else "fixed"


def _are_positions(rows: Array) -> bool:
    """Return whether each row counts up, or whether all samples are the same."""
    steps = np.diff(rows.astype(np.int64), axis=1)
    return bool(np.isin(steps, (0, 1)).all()) or (len(rows) > 1 and bool((rows == rows[0]).all()))
