"""Sounds in the page become the same values as on other devices."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest

from edgekit_agent.preprocess.audio import convert_wave, iter_windows
from edgekit_agent.preprocess.settings import Audio
from edgekit_agent.preprocess.wav import read_wav
from tests.web.node_calls import NodeError, Numbers, call, call_all, rename

_WAVE = (0.3 * np.random.default_rng(0).normal(size=4000) + np.sin(np.arange(4000) / 7)).astype(
    "f4"
)


@pytest.mark.parametrize(
    "changes",
    [
        {"spectrogram": "magnitude"},
        {"spectrogram": "magnitude", "n_fft": 400, "power": 1.0, "window": "hamming"},
        {"spectrogram": "mel", "mel_scale": "slaney"},
        {"spectrogram": "log-mel"},
        {"spectrogram": "log-mel", "log": "db", "center": True, "layout": "bins-frames"},
        {"spectrogram": "log-mel", "n_fft": 400, "window_length": 321, "mels": 80},
        {"spectrogram": "log-mel", "n_fft": 1000, "hop": 77, "low_hz": 60.0, "high_hz": 7000.0,
         "mel_scale": "slaney", "center": True, "floor": 1e-3},
        {"spectrogram": "mel", "n_fft": 211, "hop": 100, "window": "ones", "power": 1.5},
        {"spectrogram": "log-mel", "n_fft": 64, "mels": 60},
    ],
    ids=str,
)  # fmt: skip
def test_spectrograms_are_those_of_other_devices(changes: dict[str, Any]) -> None:
    """To 1e-5 of their values, with any window, filters, scale and layout."""
    how = Audio(rate=16_000, **changes)
    wanted = convert_wave(_WAVE, how)
    found = call("audio/audio", "convertWave", Numbers(_WAVE), rename(how), [])
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_spectrograms_without_bounds_are_one_clear_error() -> None:
    """Settings that would keep the page busy for hours are refused."""
    long = Numbers(np.zeros(1 << 20, np.float32))
    for changes in ({"n_fft": 1 << 16, "hop": 1}, {"n_fft": 65_521}):
        how = rename(Audio(rate=16_000, spectrogram="mel", **changes))
        with pytest.raises(NodeError) as caught:
            call("audio/audio", "convertWave", long, how, [])
        assert caught.value.kind == "bad_job"


def test_rows_have_the_axes_of_the_input() -> None:
    """Axes of length 1 stand where the model has them."""
    how = rename(Audio(rate=16_000, spectrogram="log-mel"))
    calls = [[Numbers(_WAVE), how, sizes] for sizes in ([1, "time", 40], ["time", 40, 1], [5])]
    shapes = [found.shape for found in call_all("audio/audio", "convertWave", calls)]
    assert shapes == [(1, 22, 40), (22, 40, 1), (22, 40)]


def test_steps_of_a_stream_are_those_of_other_devices() -> None:
    """Windows that overlap, that do not, and more values than whole steps."""
    for window, step in ((512, 160), (300, 300), (4000, 4000)):
        wanted = np.array(list(iter_windows(_WAVE, window, step)))
        found = call("audio/audio", "listWindows", Numbers(_WAVE), window, step)
        np.testing.assert_array_equal(found, wanted)


def make_wav(values: bytes, kind: int, bits: int, channels: int, extra: bytes = b"") -> bytes:
    """Return a .wav file."""
    step = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, 16_000, 16_000 * step, step, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + head + extra
    chunks += b"data" + struct.pack("<I", len(values)) + values
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_wav_files_are_read_to_the_same_values(kind: int, bits: int, channels: int) -> None:
    """Integers and floats, of several channels, with another chunk before the samples."""
    random = np.random.default_rng(bits)
    count = 60 * channels
    raw = random.bytes(count * bits // 8)
    if kind == 3:
        raw = random.uniform(-1, 1, count).astype(f"<f{bits // 8}").tobytes()
    wav = make_wav(raw, kind, bits, channels, extra=b"LIST" + struct.pack("<I", 3) + b"abc\0")
    found = call("audio/wav", "readWav", Numbers(np.frombuffer(wav, np.uint8)))
    assert found["rate"] == 16_000
    wanted = read_wav(io.BytesIO(wav), "sound")
    np.testing.assert_allclose(found["wave"], wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"ID3 not a sound at all",
        make_wav(b"\0" * 8, 1, 16, 1)[:-4],
        make_wav(b"\0" * 8, 6, 8, 1),
        make_wav(b"\0" * 8, 1, 12, 1),
        make_wav(b"\0" * 8, 1, 16, 0),
        make_wav(struct.pack("<f", float("nan")), 3, 32, 1),
        make_wav(struct.pack("<d", 1e300), 3, 64, 1),
        make_wav(b"", 1, 16, 1)[:20],
        make_wav(b"", 1, 16, 1)[:30],
    ],
)
def test_damaged_wav_files_are_one_clear_error(data: bytes) -> None:
    """Truncated, compressed, or something else."""
    with pytest.raises(NodeError) as caught:
        call("audio/wav", "readWav", Numbers(np.frombuffer(data, np.uint8)))
    assert caught.value.kind == "bad_sample"
