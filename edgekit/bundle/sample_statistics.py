"""Statistics of the samples of an input: limits, moments, spectrum, and frequencies of numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Samples behind every mean and frequency; with fewer, the range alone is used.
FEWEST_SAMPLES = 8
# Most extreme samples that are averaged to a limit.
_EXTREMES = 3
# Rows with at most this many positions have statistics of each position, others of each axis.
_MOST_POSITIONS = 4096
# Samples whose spectrum is averaged.
_TRANSFORMED = 16
# Axes from this size on are smooth, like space and time; shorter ones are channels.
_LEAST_SMOOTH = 8
# Channels, and features of a row of one axis, whose correlation is kept.
_MOST_CHANNELS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueStatistics:
    """Statistics of an input of measured values, such as pixels, waves and table columns.

    All arrays broadcast to the shape of a sample. ``spectrum`` is the average amplitude by
    frequency over the axes ``smooth``; ``mixing`` turns independent channels into channels that
    correlate as those of the samples do.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    low: Array
    high: Array
    mean: Array
    std: Array
    is_whole: NDArray[np.bool_]
    smooth: tuple[int, ...] = ()
    spectrum: Array | None = None
    mixing: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeStatistics:
    """Statistics of an input of numbers that are codes, such as tokens, categories and masks.

    ``frequent`` holds for each position the numbers that at least ``FEWEST_SAMPLES`` samples have
    there, with their shares; ``pool`` those that as many samples have anywhere.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    frequent: tuple[tuple[NDArray[np.int64], Array], ...] = ()
    pool: tuple[NDArray[np.int64], Array] | None = None


InputStatistics = ValueStatistics | CodeStatistics


@dataclass(frozen=True)
class KnownStatistics:
    """Statistics of inputs, each computed once for the same samples."""

    _found: dict[str, InputStatistics] = field(default_factory=dict)

    def compute(self, values: NDArray[np.generic]) -> InputStatistics:
        """Compute the statistics of an input, or return those of equal samples."""
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        key = f"{digest} {values.dtype} {values.shape}"
        if key not in self._found:
            self._found[key] = compute_statistics(values)
        return self._found[key]


def compute_statistics(values: NDArray[np.generic]) -> InputStatistics:
    """Compute the statistics of an input.

    Args:
        values: The samples along the first axis.
    """
    if values.dtype.kind in "biu" and not _is_signal(values):
        return _compute_code_statistics(values)
    return _compute_value_statistics(values)


def _is_signal(values: NDArray[np.generic]) -> bool:
    """Return whether integers are measured values, such as pixels and samples of sound."""
    if values.dtype.kind == "b" or values.dtype.itemsize > 2:
        return False
    return values[0].size >= _MOST_CHANNELS and len(np.unique(values)) > 2


def _compute_value_statistics(values: NDArray[np.generic]) -> ValueStatistics:
    rows = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    shape = rows.shape[1:]
    smooth = _find_smooth_axes(shape)
    if len(rows) < FEWEST_SAMPLES:
        return _describe_range(rows, values.dtype, smooth)
    small = rows[0].size <= _MOST_POSITIONS
    mean: Array = rows.mean(0) if small else _add_profiles(rows)
    std = np.sqrt(_multiply_profiles((rows - mean) ** 2, is_small=small))
    low, high = _average_extremes(rows, is_small=small)
    centered = (rows - mean) / np.where(std > 0, std, 1.0)
    return ValueStatistics(
        shape=shape,
        dtype=values.dtype,
        low=low,
        high=high,
        mean=mean,
        std=std,
        is_whole=_find_whole(rows, is_small=small),
        smooth=smooth,
        spectrum=_compute_spectrum(centered, smooth),
        mixing=_compute_mixing(centered, smooth),
    )


def _describe_range(
    rows: Array, dtype: np.dtype[np.generic], smooth: tuple[int, ...]
) -> ValueStatistics:
    """Describe few samples by their range alone, which is widened."""
    shape = rows.shape[1:]
    ones = np.ones((1,) * len(shape))
    least, most = _widen(float(rows.min())), _widen(float(rows.max()), up=True)
    return ValueStatistics(
        shape=shape,
        dtype=dtype,
        low=ones * least,
        high=ones * most,
        mean=ones * (least + most) / 2,
        std=ones * (most - least) / 4,
        is_whole=np.full(ones.shape, bool(np.all(rows == np.rint(rows)))),
        smooth=smooth,
        spectrum=_make_smooth_spectrum(shape, smooth),
    )


def _find_smooth_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 1 and shape[0] <= _MOST_CHANNELS:
        return ()  # columns of a table
    return tuple(axis for axis, size in enumerate(shape) if size >= _LEAST_SMOOTH)


def _widen(limit: float, *, up: bool = False) -> float:
    """Round a limit of few samples to a power of two, outwards."""
    if limit == 0:
        return 0.0
    exponent = np.log2(abs(limit))
    away = (limit > 0) is up
    return float(np.sign(limit) * 2.0 ** (np.ceil(exponent) if away else np.floor(exponent)))


def _find_whole(rows: Array, *, is_small: bool) -> NDArray[np.bool_]:
    """Return which positions hold whole numbers only; of long rows, whether all do."""
    whole = rows == np.rint(rows)
    return np.asarray(whole.all(0) if is_small else whole.all(keepdims=True)[0])


def _average_extremes(rows: Array, *, is_small: bool) -> tuple[Array, Array]:
    """Return limits that no single sample decides: averages of the most extreme samples."""
    axes = tuple(range(1, rows.ndim))
    lowest = rows if is_small else rows.min(axes, keepdims=True)
    highest = rows if is_small else rows.max(axes, keepdims=True)
    low: Array = np.sort(lowest, axis=0)[:_EXTREMES].mean(0)
    high: Array = np.sort(highest, axis=0)[-_EXTREMES:].mean(0)
    return low, high


def _add_profiles(rows: Array) -> Array:
    """Return the mean of each position as the sum of the profiles along the axes."""
    center = rows.mean()
    total = np.full(rows.shape[1:], center)
    for axis in range(1, rows.ndim):
        others = tuple(a for a in range(rows.ndim) if a != axis)
        profile = rows.mean(others) - center
        total += profile.reshape([-1 if a == axis else 1 for a in range(1, rows.ndim)])
    return total


def _multiply_profiles(squares: Array, *, is_small: bool) -> Array:
    """Return the variance of each position; of long rows as the product of profiles."""
    if is_small:
        return np.asarray(squares.mean(0))
    center = squares.mean()
    total = np.full(squares.shape[1:], center)
    for axis in range(1, squares.ndim):
        others = tuple(a for a in range(squares.ndim) if a != axis)
        profile = squares.mean(others) / (center or 1.0)
        total *= profile.reshape([-1 if a == axis else 1 for a in range(1, squares.ndim)])
    return total


def _compute_spectrum(centered: Array, smooth: tuple[int, ...]) -> Array | None:
    """Compute the average amplitude by frequency over the smooth axes."""
    if not smooth:
        return None
    power = np.zeros(1)
    for row in centered[:_TRANSFORMED]:
        power = power + np.abs(np.fft.fftn(row, axes=smooth)) ** 2
    others = tuple(a for a in range(power.ndim) if a not in smooth)
    return scale_to_unit(np.sqrt(power.mean(others, keepdims=True)))


def _make_smooth_spectrum(shape: tuple[int, ...], smooth: tuple[int, ...]) -> Array | None:
    """Return the spectrum of natural images: amplitudes fall with the frequency."""
    return scale_to_unit(1.0 / measure_frequencies(shape, smooth)) if smooth else None


def measure_frequencies(shape: tuple[int, ...], smooth: tuple[int, ...]) -> Array:
    """Return the frequencies of a Fourier transform over the smooth axes, all above 0."""
    squares = np.zeros((1,) * len(shape))
    for axis in smooth:
        steps = np.fft.fftfreq(shape[axis]) ** 2
        squares = squares + steps.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    frequencies: Array = np.sqrt(squares) + 1.0 / max(shape)
    return frequencies


def scale_to_unit(spectrum: Array) -> Array:
    """Scale a spectrum such that it keeps the variance of white noise."""
    size = np.sqrt(np.mean(spectrum**2))
    scaled: Array = spectrum / size if size > 0 else np.ones_like(spectrum)
    return scaled


def _compute_mixing(centered: Array, smooth: tuple[int, ...]) -> Array | None:
    """Compute the square root of the correlation of channels, drawn towards independence."""
    shape = centered.shape[1:]
    sizes = [size for axis, size in enumerate(shape) if axis not in smooth]
    channels = int(np.prod(sizes, dtype=np.int64))
    if not 1 < channels <= _MOST_CHANNELS:
        return None
    places = [a for a in range(1, centered.ndim) if a - 1 not in smooth]
    flat = np.moveaxis(centered, places, range(len(places))).reshape(channels, -1)
    correlation = flat @ flat.T / flat.shape[1]
    weight = channels / (channels + len(centered))
    values, vectors = np.linalg.eigh((1 - weight) * correlation + weight * np.eye(channels))
    root: Array = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def _compute_code_statistics(values: NDArray[np.generic]) -> CodeStatistics:
    shape = values.shape[1:]
    rows = values.astype(np.int64).reshape(len(values), -1)
    if len(rows) < FEWEST_SAMPLES:
        low, high = _narrow(int(rows.min()), int(rows.max()))
        return CodeStatistics(
            shape=shape, dtype=values.dtype, low=np.array([low]), high=np.array([high])
        )
    ordered = np.sort(rows, axis=0)
    return CodeStatistics(
        shape=shape,
        dtype=values.dtype,
        low=-(-ordered[:_EXTREMES].sum(0) // _EXTREMES),
        high=ordered[-_EXTREMES:].sum(0) // _EXTREMES,
        frequent=tuple(map(_count_frequent, ordered.T))
        if len(ordered.T) <= _MOST_POSITIONS
        else (),
        pool=_count_shared(rows),
    )


def _narrow(low: int, high: int) -> tuple[int, int]:
    """Round the limits of few samples to powers of two, inwards, where codes are valid."""
    inner = low, high
    if low > 0:
        inner = 1 << (low - 1).bit_length(), 1 << (high.bit_length() - 1)
    elif low == 0 and high > 0:
        inner = 0, 1 << (high.bit_length() - 1)
    return inner if inner[0] <= inner[1] else (low, high)


def _count_frequent(column: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """Return the codes that enough samples have at a position, with their shares."""
    codes, counts = np.unique(column, return_counts=True)
    enough = counts >= FEWEST_SAMPLES
    return codes[enough], counts[enough] / len(column)


def _count_shared(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """Return the codes that enough samples have anywhere, with their relative frequencies."""
    own = [np.unique(row) for row in rows]
    codes, holders = np.unique(np.concatenate(own), return_counts=True)
    shared = codes[holders >= FEWEST_SAMPLES]
    found, counts = np.unique(rows, return_counts=True)
    return shared, counts[np.isin(found, shared)] / max(rows.size, 1)
