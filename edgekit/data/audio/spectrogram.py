"""Spectrograms of audio with the settings of edgekit.toml."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.config.audio import AudioSettings
from edgekit_agent.preprocess import spectrogram

Floats = NDArray[np.float64]


def compute_spectrogram(wave: NDArray[np.float32], how: AudioSettings, rate: int) -> Floats:
    """Compute the spectrogram [frames, bins] of a signal.

    Args:
        wave: The signal.
        how: Settings with a spectrogram.
        rate: Sampling rate in Hz.
    """
    return spectrogram.compute_spectrogram(wave, how.to_audio(rate))


def build_mel_filters(how: AudioSettings, rate: int) -> Floats:
    """Build triangular filters [mels, bins]."""
    return spectrogram.build_mel_filters(how.to_audio(rate))
