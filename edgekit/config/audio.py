"""``[data.audio]`` of edgekit.toml: length of audio samples, and their spectrogram."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit_agent.preprocess.settings import Audio

Count = Annotated[int, Field(ge=1, le=1 << 24)]
Hertz = Annotated[float, Field(ge=0, le=1e6)]


class AudioSettings(BaseModel):
    """``[data.audio]``: how ``.wav`` files become an input.

    Longer files are cut at the end, shorter ones are filled with zeros. Without a length of the
    settings or of the model's input, each file is run at its own length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rate: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Sampling rate of all files in Hz; files of another rate are an error."""
    samples: Count | None = None
    """Length of each sample in values; else that of the model's input, or of each file."""
    length_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Length of each sample in seconds, instead of ``samples``."""
    step: Count | None = None
    """New values of each step, if each file is a stream for a model with states. ``samples``, or
    the model's input, may be longer: a sample then begins with the last values before the step."""
    spectrogram: Literal["log-mel", "mel", "magnitude"] | None = None
    """Kind of spectrogram; without it the input takes the values between -1 and 1."""
    n_fft: Annotated[int, Field(ge=2, le=1 << 16)] = 512
    """Size of the Fourier transform."""
    hop: Count = 160
    """Values from one frame to the next."""
    window: Literal["hann", "hamming", "ones"] = "hann"
    """Window of each frame (periodic)."""
    window_length: Count | None = None
    """Length of the window; ``n_fft`` unless given. Zeros fill both sides of a shorter one."""
    center: bool = False
    """Whether the signal is reflected at both ends by half of ``n_fft``, as in librosa."""
    power: Annotated[float, Field(gt=0, le=4)] = 2.0
    """Exponent of the magnitudes: 1 = magnitude, 2 = power."""
    mels: Annotated[int, Field(ge=1, le=1024)] = 40
    """Number of mel filters."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """``htk``: height 1, as torchaudio; ``slaney``: equal area, as librosa."""
    low_hz: Hertz = 0.0
    """Lowest frequency of the filters."""
    high_hz: Hertz | None = None
    """Highest frequency of the filters; half of the sampling rate unless given."""
    log: Literal["ln", "db"] = "ln"
    """Natural logarithm, or decibels (10 log10)."""
    floor: Annotated[float, Field(gt=0)] = 1e-10
    """Smallest value before the logarithm."""
    layout: Literal["frames-bins", "bins-frames"] = "frames-bins"
    """Order of the axes of the input; axes of size 1 are added as the model has them."""

    @model_validator(mode="after")
    def _check(self) -> AudioSettings:
        if self.samples is not None and self.length_s is not None:
            raise ValueError("'samples' excludes 'length_s'")
        if (self.window_length or 0) > self.n_fft:
            raise ValueError("'window_length' must not exceed 'n_fft'")
        if self.high_hz is not None and self.high_hz <= self.low_hz:
            raise ValueError("'high_hz' must exceed 'low_hz'")
        return self

    def to_audio(self, rate: int, samples: int | None = None) -> Audio:
        """Return the settings of a device.

        Args:
            rate: Sampling rate of the files in Hz.
            samples: Length of each sample; ``None`` = each file keeps its own.
        """
        values = self.model_dump(exclude={"rate", "samples", "length_s"})
        return Audio(rate=rate, samples=samples, **values)
