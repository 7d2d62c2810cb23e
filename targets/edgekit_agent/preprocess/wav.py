"""Samples of ``.wav`` files: integers of 8 to 32 bits and floats, mixed to one channel."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Optional

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INTEGERS, _FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE
# Types of the standard (little-endian) by format and bits; 24 bits are read byte by byte.
_TYPES = {
    (_INTEGERS, 8): "u1",
    (_INTEGERS, 16): "<i2",
    (_INTEGERS, 24): "u1",
    (_INTEGERS, 32): "<i4",
    (_FLOATS, 32): "<f4",
    (_FLOATS, 64): "<f8",
}
_OTHERS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 0x55: "MP3"}
_MOST_CHANNELS = 256
_MOST_BYTES = 1 << 28
_MOST_CHUNKS = 1000
# Size of the data that programs state if they cannot know it.
_UNKNOWN_SIZE = 0xFFFFFFFF


@dataclass(frozen=True)
class WavFormat:
    """Format of the samples of a file, and where they are."""

    kind: int
    bits: int
    channels: int
    rate: int
    offset: int = 0
    size: int = 0

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of one value of each channel."""
        return self.channels * self.bits // 8

    @property
    def count(self) -> int:
        """Return the number of values of each channel."""
        return self.size // self.frame_bytes


def read_wav_format(file: BinaryIO, name: str) -> WavFormat:
    """Read the format of a file from its header.

    Args:
        file: the file.
        name: its name, for messages.

    Raises:
        AgentError: ``bad_sample``: it is not a ``.wav`` file, damaged, or compressed.
    """
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise AgentError(
            "bad_sample",
            f"{name}: not a .wav file",
            hint="convert it with: ffmpeg -i FILE OUT.wav",
        )
    end = file.seek(0, 2)
    found: Optional[WavFormat] = None
    place = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if kind == b"fmt ":
            found = _parse_format(file.read(min(size, 40)), name)
        elif kind == b"data" and found is not None:
            return _locate_data(found, place + 8, size, end, name)
        place += 8 + size + size % 2
    raise AgentError("bad_sample", f"{name}: damaged: it has no {'data' if found else 'format'}")


def read_wav(file: BinaryIO, name: str, most: Optional[int] = None) -> NDArray[np.float32]:
    """Read the mean of all channels, integers scaled to -1..1.

    Args:
        file: the file.
        name: its name, for messages.
        most: largest number of values to read; ``None`` = all.

    Raises:
        AgentError: ``bad_sample``: as ``read_wav_format``; or a value is not finite.
    """
    how = read_wav_format(file, name)
    count = how.count if most is None else min(most, how.count)
    if count * how.frame_bytes > _MOST_BYTES:
        raise AgentError(
            "bad_sample",
            f"{name}: has more than {_MOST_BYTES >> 20} MiB of samples",
            hint="cut it, or set [data.audio] length_s",
        )
    file.seek(how.offset)
    data = file.read(count * how.frame_bytes)
    with np.errstate(over="ignore", invalid="ignore"):
        values = _decode(data, how).reshape(-1, how.channels).mean(axis=1)
        mono: NDArray[np.float32] = values.astype(np.float32)
    if not np.isfinite(mono).all():
        raise AgentError(
            "bad_sample", f"{name}: value {int(np.argmin(np.isfinite(mono)))} is not finite"
        )
    return mono


def _decode(data: bytes, how: WavFormat) -> NDArray[np.float64]:
    raw = np.frombuffer(data, _TYPES[how.kind, how.bits])
    if how.kind == _FLOATS:
        return raw.astype(np.float64)
    if how.bits == 8:  # the only unsigned type
        return (raw.astype(np.float64) - 128) / 128
    if how.bits == 24:
        parts = raw.reshape(-1, 3).astype(np.int32)
        raw = (parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24) >> 8
    scaled: NDArray[np.float64] = raw / float(1 << (how.bits - 1))
    return scaled


def _parse_format(data: bytes, name: str) -> WavFormat:
    if len(data) < 16:
        raise AgentError("bad_sample", f"{name}: damaged: its format is incomplete")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", data[:16])
    if kind == _EXTENSIBLE and len(data) >= 26:
        kind = int.from_bytes(data[24:26], "little")
    if (kind, bits) not in _TYPES:
        raise AgentError(
            "bad_sample",
            f"{name}: {_OTHERS.get(kind, f'format {kind}')} of {bits} bits is not read",
            hint="convert it to 16-bit PCM: ffmpeg -i FILE -c:a pcm_s16le OUT.wav",
        )
    if not 1 <= channels <= _MOST_CHANNELS or not rate:
        raise AgentError("bad_sample", f"{name}: damaged: {channels} channels at {rate} Hz")
    return WavFormat(kind=kind, bits=bits, channels=channels, rate=rate)


def _locate_data(how: WavFormat, offset: int, size: int, end: int, name: str) -> WavFormat:
    left = end - offset
    size = left if size == _UNKNOWN_SIZE else size
    if size > left:
        raise AgentError("bad_sample", f"{name}: truncated: {left} of {size} bytes of samples")
    return replace(how, offset=offset, size=size)
