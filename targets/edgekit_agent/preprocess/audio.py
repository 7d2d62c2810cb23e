"""Sounds as rows of a model's input: signals or spectrograms, whole or step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, Sequence, Tuple, Union

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.preprocess.spectrogram import compute_spectrogram, count_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.preprocess.settings import Audio

    Sizes = Sequence[Union[int, str, None]]


def choose_shape(name: str, length: int, how: Audio, sizes: Sizes) -> Tuple[int, ...]:
    """Return the shape of a row, with the axes of size 1 that the model's input has.

    Args:
        name: name of the sound, for messages.
        length: values of the sound.
        how: settings.
        sizes: shape of the input without the axis of the samples; empty if it is not known.

    Raises:
        AgentError: ``bad_sample``: the sound is too short for a frame of its spectrogram.
    """
    shape: Tuple[int, ...] = (length,)
    if how.spectrogram is not None:
        frames = count_frames(length, how)
        if not frames or (how.center and length <= how.n_fft // 2):
            raise AgentError(
                "bad_sample",
                f"{name}: {length} values are too few for a frame of n_fft = {how.n_fft}",
            )
        bins = how.n_fft // 2 + 1 if how.spectrogram == "magnitude" else how.mels
        shape = (frames, bins) if how.layout == "frames-bins" else (bins, frames)
    kept = iter(shape)
    if len(sizes) - sum(size == 1 for size in sizes) != len(shape):
        return shape
    return tuple(1 if size == 1 else next(kept) for size in sizes)


def convert_wave(wave: NDArray[np.float32], how: Audio) -> NDArray[Any]:
    """Return the values that the model takes: those of the signal, or its spectrogram."""
    if how.spectrogram is None:
        return wave
    found = compute_spectrogram(wave, how)
    return found if how.layout == "frames-bins" else found.T


def pad_wave(wave: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Fill a signal with zeros at its end."""
    return np.pad(wave, (0, length - len(wave)))


def iter_windows(
    wave: NDArray[np.float32], window: int, step: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the values of each step: new ones, after the last ones of the step before.

    Zeros come before the first step. Values behind the last whole step are left out.
    """
    padded = np.pad(wave, (window - step, 0))
    for start in range(0, len(wave) - step + 1, step):
        yield padded[start : start + window]
