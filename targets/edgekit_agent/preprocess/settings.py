"""Settings of preprocessing, as plain records: images, sounds, texts and rows of fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple


@dataclass(frozen=True)
class DecodeSettings:
    """Sizes and channels of decoded images.

    Attributes:
        resize: length of the short side, bicubic.
        crop: side of the square cut from the center.
        mode: ``letterbox`` or ``stretch``: how an image becomes ``size``, scaled into it and
            padded, or stretched; bilinear.
        size: height and width of the result if there is a mode.
        pad: value of the padding.
        centered: whether padding is on both sides, else below and to the right.
        reversed_channels: whether channels are stored as blue, green, red.
        gray: whether images have one channel.
        keeps_sizes: whether images may differ in size.
    """

    resize: Optional[int]
    crop: Optional[int]
    mode: Optional[str]
    size: Optional[Tuple[int, int]]
    pad: int
    centered: bool
    reversed_channels: bool
    gray: bool
    keeps_sizes: bool = False

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return 1 if self.gray else 3


@dataclass(frozen=True)
class Audio:
    """Settings of sounds; the names are those of ``[data.audio]`` in edgekit.toml.

    Attributes:
        rate: sampling rate in Hz.
        samples: values of each sample; ``None`` = each sound keeps its length.
        step: new values of each step of a stream; ``None`` = a sound is one sample.
        spectrogram: ``log-mel``, ``mel`` or ``magnitude``; ``None`` = the values themselves.
        n_fft: size of the Fourier transform.
        hop: values from one frame to the next.
        window: ``hann``, ``hamming`` or ``ones``, periodic.
        window_length: length of the window; ``None`` = ``n_fft``.
        center: whether the signal is reflected at both ends by half of ``n_fft``.
        power: exponent of the magnitudes.
        mels: number of mel filters.
        mel_scale: ``htk`` or ``slaney``.
        low_hz: lowest frequency of the filters.
        high_hz: highest frequency of the filters; ``None`` = half of the rate.
        log: ``ln`` or ``db``.
        floor: smallest value before the logarithm.
        layout: ``frames-bins`` or ``bins-frames``.
    """

    rate: int
    samples: Optional[int] = None
    step: Optional[int] = None
    spectrogram: Optional[str] = None
    n_fft: int = 512
    hop: int = 160
    window: str = "hann"
    window_length: Optional[int] = None
    center: bool = False
    power: float = 2.0
    mels: int = 40
    mel_scale: str = "htk"
    low_hz: float = 0.0
    high_hz: Optional[float] = None
    log: str = "ln"
    floor: float = 1e-10
    layout: str = "frames-bins"


@dataclass(frozen=True)
class Text:
    """Settings of texts.

    Attributes:
        tokenizer: name of the file of the tokenizer, in the format of Hugging Face.
        length: tokens of each sample; ``None`` = each text keeps its own.
        pad_id: number of the token that fills shorter texts.
        roles: what each input takes: ``input_ids``, ``attention_mask``, ``token_type_ids`` or
            ``position_ids``.
        next_tokens: whether the targets are the following tokens, as of a language model.
    """

    tokenizer: str
    length: Optional[int] = None
    pad_id: int = 0
    roles: Optional[Dict[str, str]] = None
    next_tokens: bool = False


@dataclass(frozen=True)
class RowFields:
    """Fields of a row that feed an input, in their order; a row has a number for each."""

    input: str
    fields: Tuple[str, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array: its type, its shape and its bytes in C order (little-endian) as base64.

    An array of equal values holds one of them alone. A large constant has no bytes here; it is in
    the golden samples, as ``constant:NAME``.
    """

    dtype: str
    shape: Tuple[int, ...]
    data: str


@dataclass(frozen=True)
class ConstantInput:
    """An input that is the same in every run."""

    name: str
    value: StoredArray


@dataclass(frozen=True)
class StateInput:
    """An input that receives an output of the previous run.

    Attributes:
        name: name of the input.
        output: name of the output.
        axis: axis of the samples; -1 = there is none.
        initial: the first value, without the axis of the samples.
    """

    name: str
    output: str
    axis: int
    initial: StoredArray


@dataclass(frozen=True)
class InputSettings:
    """Sample axis of each input (-1 = none), constants and states."""

    axes: Optional[Dict[str, int]] = None
    constants: Tuple[ConstantInput, ...] = ()
    states: Tuple[StateInput, ...] = ()
