"""Spectrograms of audio: magnitudes of short-time Fourier transforms, and mel filters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.preprocess.settings import Audio

    Floats = NDArray[np.float64]

# Slaney's scale is linear up to this frequency, and logarithmic above (Auditory Toolbox, 1998).
_SLANEY_BREAK_HZ, _SLANEY_HZ, _SLANEY_STEP = 1000.0, 200 / 3, math.log(6.4) / 27


def compute_spectrogram(wave: NDArray[np.float32], how: Audio) -> Floats:
    """Compute the spectrogram [frames, bins] of a signal.

    Args:
        wave: the signal.
        how: settings with a spectrogram.
    """
    powers = np.abs(_compute_transform(wave.astype(np.float64), how)) ** how.power
    if how.spectrogram == "magnitude":
        return np.asarray(powers)
    mels = powers @ build_mel_filters(how).T
    if how.spectrogram == "mel":
        return np.asarray(mels)
    logs = np.log(np.maximum(mels, how.floor))
    return np.asarray(logs * (10 / math.log(10)) if how.log == "db" else logs)


def count_frames(samples: int, how: Audio) -> int:
    """Return the number of frames of a signal."""
    padded = samples + (2 * (how.n_fft // 2) if how.center else 0)
    return max(0, 1 + (padded - how.n_fft) // how.hop)


def build_mel_filters(how: Audio) -> Floats:
    """Build triangular filters [mels, bins].

    ``htk``: triangles of height 1 at ``2595 log10(1 + f / 700)``. ``slaney``: triangles of equal
    area on Slaney's scale.
    """
    high = how.high_hz or how.rate / 2
    if how.mel_scale == "htk":
        low_mel, high_mel = (2595 * math.log10(1 + f / 700) for f in (how.low_hz, high))
        edges = 700 * (10 ** (np.linspace(low_mel, high_mel, how.mels + 2) / 2595) - 1)
    else:
        low_mel, high_mel = (_convert_to_slaney(f) for f in (how.low_hz, high))
        edges = _convert_from_slaney(np.linspace(low_mel, high_mel, how.mels + 2))
    bins = np.linspace(0, how.rate / 2, how.n_fft // 2 + 1)
    rising = (bins - edges[:-2, np.newaxis]) / np.diff(edges)[:-1, np.newaxis]
    falling = (edges[2:, np.newaxis] - bins) / np.diff(edges)[1:, np.newaxis]
    filters = np.maximum(0, np.minimum(rising, falling))
    if how.mel_scale == "slaney":
        filters *= 2 / (edges[2:] - edges[:-2])[:, np.newaxis]
    return np.asarray(filters)


def _convert_to_slaney(hz: float) -> float:
    if hz < _SLANEY_BREAK_HZ:
        return hz / _SLANEY_HZ
    return _SLANEY_BREAK_HZ / _SLANEY_HZ + math.log(hz / _SLANEY_BREAK_HZ) / _SLANEY_STEP


def _convert_from_slaney(mels: Floats) -> Floats:
    at_break = _SLANEY_BREAK_HZ / _SLANEY_HZ
    above = _SLANEY_BREAK_HZ * np.exp(_SLANEY_STEP * (np.maximum(mels, at_break) - at_break))
    return np.where(mels < at_break, mels * _SLANEY_HZ, above)


def _compute_transform(wave: Floats, how: Audio) -> NDArray[np.complex128]:
    """Return the one-sided spectrum of each windowed frame."""
    if how.center:
        wave = np.pad(wave, how.n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(wave, how.n_fft)[:: how.hop]
    return np.fft.rfft(frames * _build_window(how), axis=1)


def _build_window(how: Audio) -> Floats:
    """Build the periodic window, padded with zeros on both sides to the size of the transform."""
    length = how.window_length or how.n_fft
    angles = 2 * np.pi * np.arange(length) / length
    if how.window == "hann":
        values = 0.5 - 0.5 * np.cos(angles)
    elif how.window == "hamming":
        values = 0.54 - 0.46 * np.cos(angles)
    else:
        values = np.ones(length)
    before = (how.n_fft - length) // 2
    return np.pad(values, (before, how.n_fft - length - before))
