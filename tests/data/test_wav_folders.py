"""Samples from folders of wav files: formats, lengths, spectrograms, and clear errors."""

from __future__ import annotations

import contextlib
import math
import struct
import wave

import numpy as np
import pytest
import torch

from edgekit.config.audio import AudioSettings
from edgekit.config.project import FileSettings
from edgekit.data.audio.spectrogram import build_mel_filters, compute_spectrogram
from edgekit.data.audio.wav_files import read_wav
from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec

RATE = 8000


def tone(hz, count=800, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(count) / rate)


def save(path, signal, rate=RATE):
    """Write 16-bit PCM; a second axis has the channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.round(np.asarray(signal) * 32768).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.tobytes())


def riff(data, kind, bits, channels=1, extra=b"", before=b""):
    head = struct.pack("<HHIIHH", kind, channels, RATE, 0, channels * bits // 8, bits) + extra
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture
def opened(tmp_path):
    def read(*shape, targets="required", most=None, **settings):
        spec = TensorSpec(name="audio", dtype="float32", shape=shape)
        found = open_dataset(
            "data",
            Signature(inputs=(spec,), outputs=()),
            folder=tmp_path,
            cache=tmp_path / "cache",
            files=FileSettings(audio=AudioSettings(**settings)),
            targets=targets,
            most=most,
        )
        return read_column(found.samples.columns[0]), found

    return read


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("kind", "bits", "encode", "atol"),
    [
        (1, 8, lambda x: np.round(x * 128 + 128).astype("u1").tobytes(), 1 / 128),
        (1, 16, lambda x: np.round(x * 2**15).astype("<i2").tobytes(), 2**-15),
        (
            1,
            24,
            lambda x: b"".join(
                int(v).to_bytes(3, "little", signed=True) for v in np.round(x * 2**23)
            ),
            2**-23,
        ),
        (1, 32, lambda x: np.round(x * 2.0**31).astype("<i4").tobytes(), 1e-7),
        (3, 32, lambda x: x.astype("<f4").tobytes(), 1e-7),
        (3, 64, lambda x: x.astype("<f8").tobytes(), 1e-7),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_format_gives_the_same_values(tmp_path, kind, bits, encode, atol, extensible):
    signal = tone(440) * 1.9  # from -0.95 to 0.95
    signal[3] = -1
    extra = b"\x16\0" + bytes(6) + struct.pack("<H", kind) + bytes(14) if extensible else b""
    list_chunk = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    data = riff(encode(signal), 0xFFFE if extensible else kind, bits, 1, extra, list_chunk)
    (tmp_path / "a.wav").write_bytes(data)

    found = read_wav(tmp_path / "a.wav")

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, signal, atol=atol)


def test_channels_are_mixed(tmp_path):
    save(tmp_path / "a.wav", np.stack([tone(100), tone(300)], axis=1))

    np.testing.assert_allclose(
        read_wav(tmp_path / "a.wav"), (tone(100) + tone(300)) / 2, atol=2**-15
    )


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a .wav file"),
        (b"ID3\x04 an mp3 file with another name", "not a .wav file"),
        (riff(b"\0" * 40, 2, 4), "ADPCM of 4 bits is not read"),
        (riff(b"\0" * 40, 7, 8), "mu-law of 8 bits is not read"),
        (riff(b"\0" * 40, 1, 12), "format 1 of 12 bits is not read"),
        (riff(b"\0" * 40, 1, 16)[:-7], "truncated: 33 of 40 bytes"),
        (riff(b"\0" * 40, 1, 16)[:30], "its format is incomplete"),
        (riff(b"\0" * 40, 1, 16)[:36], "damaged: it has no data"),
        (riff(b"", 1, 16)[:12] + b"data\4\0\0\0abcd", "damaged: it has no format"),
        (riff(b"\0" * 40, 1, 16, channels=0), "damaged: 0 channels"),
        (riff(np.float32([0, np.nan]).tobytes(), 3, 32), "value 1 is not finite"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, opened, data, complaint):
    save(tmp_path / "data" / "on" / "good.wav", np.zeros(2))
    (tmp_path / "data" / "on" / "other.wav").write_bytes(data)

    with pytest.raises(UserError) as refused:
        opened("N", "T")

    assert complaint in str(refused.value)
    assert "other.wav" in refused.value.message
    assert "\n" not in refused.value.message


def test_random_damage_is_refused_or_read(tmp_path):
    whole = riff(np.zeros(50, "<i2").tobytes(), 1, 16)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, 48, 3):
            data[place] = rng.integers(0, 256)
        (tmp_path / "a.wav").write_bytes(bytes(data))
        # Any other exception fails the test.
        with contextlib.suppress(UserError):
            assert read_wav(tmp_path / "a.wav").ndim == 1


# ---------------------------------------------------------------- folders


def test_subfolders_are_classes(tmp_path, opened):
    save(tmp_path / "data" / "no" / "1.wav", tone(100))
    save(tmp_path / "data" / "yes" / "1.wav", tone(200))
    save(tmp_path / "data" / "yes" / "2.wav", tone(300))

    rows, found = opened("N", 1, 800, rate=RATE)

    assert [int(each["y"]) for each in found.read_targets()] == [0, 1, 1]
    assert rows.shape == (3, 1, 800)
    np.testing.assert_allclose(rows[2, 0], tone(300), atol=2**-15)


def test_a_table_gives_labels_values_or_texts_and_groups(tmp_path, opened):
    for name in "ab":
        save(tmp_path / "data" / f"{name}.wav", tone(100))
    labels = tmp_path / "data" / "labels.csv"
    labels.write_text("file,label,group,slice_room\nb.wav,0.5,ann,hall\na.wav,2,bob,hall\n")
    _, found = opened("N", "T")
    assert [float(each["y"]) for each in found.read_targets()] == [0.5, 2]
    assert found.groups.tolist() == [0, 1]
    assert found.slices["room"].tolist() == ["hall", "hall"]

    labels.write_text('file,text\na.wav,"good, morning"\nb.wav,ja\n', encoding="utf-8")
    _, found = opened("N", "T")
    texts = ["".join(map(chr, each["y"])) for each in found.read_targets()]
    assert texts == ["good, morning", "ja"]


def test_files_without_labels_do_for_calibration(tmp_path, opened):
    for name in "abcd":
        save(tmp_path / "data" / f"{name}.wav", tone(100))

    assert opened("N", "T", targets="none")[1].count == 4
    assert opened("N", "T", targets="none", most=2)[1].count == 2
    with pytest.raises(UserError, match="no labels"):
        opened("N", "T")


@pytest.mark.parametrize(
    ("settings", "size", "length"),
    [
        ({"samples": 500}, "T", 500),
        ({"length_s": 0.1}, "T", 800),
        ({"length_s": 0.1}, 800, 800),
        ({}, 1000, 1000),
    ],
)
def test_files_are_cut_or_filled_to_the_length(tmp_path, opened, settings, size, length):
    save(tmp_path / "data" / "a" / "1.wav", tone(100, 600))
    save(tmp_path / "data" / "a" / "2.wav", tone(100, 1200))

    rows, _ = opened("N", size, **settings)

    kept = min(600, length)
    assert rows.shape == (2, length)
    np.testing.assert_allclose(rows[0, :kept], tone(100, kept), atol=2**-15)
    assert not rows[0, kept:].any()
    np.testing.assert_allclose(rows[1], tone(100, length), atol=2**-15)


def test_files_keep_their_lengths_if_the_model_leaves_them_free(tmp_path, opened):
    save(tmp_path / "data" / "a" / "1.wav", tone(100, 600))
    save(tmp_path / "data" / "a" / "2.wav", tone(100, 1200))

    rows, found = opened("N", 1, "T")

    assert read_column(found.samples.lengths[0]).tolist() == [[1, 600], [1, 1200]]
    assert rows.shape == (2, 1, 1200)
    np.testing.assert_array_equal(rows[0, 0, :600], read_wav(tmp_path / "data" / "a" / "1.wav"))
    assert not opened("N", 1, "T", samples=700)[1].samples.lengths


@pytest.mark.parametrize(
    ("shape", "layout"), [(("N", "T", 12), "frames-bins"), (("N", 1, 12, "T"), "bins-frames")]
)
def test_a_spectrogram_is_computed_from_the_file_alone(tmp_path, opened, shape, layout):
    settings = {"spectrogram": "log-mel", "n_fft": 128, "hop": 80, "mels": 12, "center": True}
    for name, count in (("1", 800), ("2", 500), ("3", 803)):
        save(tmp_path / "data" / "a" / f"{name}.wav", tone(1000, count))

    rows, found = opened(*shape, layout=layout, **settings)

    lengths = read_column(found.samples.lengths[0])
    for row, size, name in zip(rows, lengths, ("1", "2", "3"), strict=True):
        signal = read_wav(tmp_path / "data" / "a" / f"{name}.wav")
        expected = compute_spectrogram(signal, AudioSettings(**settings), RATE).astype(np.float32)
        own = row[tuple(map(slice, size))]
        wanted = expected if layout == "frames-bins" else expected.T[np.newaxis]
        np.testing.assert_array_equal(own, wanted)


def test_a_model_of_other_axes_needs_one_length(tmp_path, opened):
    save(tmp_path / "data" / "a" / "1.wav", tone(100, 600))
    save(tmp_path / "data" / "a" / "2.wav", tone(100, 1200))

    with pytest.raises(UserError, match=r"2\.wav has 1200 values, 1\.wav 600") as refused:
        opened("N", 2, "T")
    assert "length_s" in refused.value.hint


def test_a_file_without_values_is_refused(tmp_path, opened):
    save(tmp_path / "data" / "a" / "1.wav", tone(100, 600))
    save(tmp_path / "data" / "a" / "2.wav", [])

    with pytest.raises(UserError, match=r"2\.wav has no values"):
        opened("N", "T")


def test_another_sampling_rate_is_refused_with_both(tmp_path, opened):
    save(tmp_path / "data" / "a" / "1.wav", tone(100))
    save(tmp_path / "data" / "a" / "2.wav", tone(100), rate=16000)

    with pytest.raises(UserError, match=r"2\.wav: has 16000 .* the rate of 1\.wav is 8000"):
        opened("N", "T")
    with pytest.raises(UserError, match=r"1\.wav: has 8000 .* \[data\.audio\] rate is 16000"):
        opened("N", "T", rate=16000)


def test_a_file_that_the_table_names_must_exist(tmp_path, opened):
    save(tmp_path / "data" / "a.wav", tone(100))
    (tmp_path / "data" / "labels.csv").write_text("file,label\nb.wav,1\n")

    with pytest.raises(UserError, match=r"labels\.csv: line 2: no file 'b\.wav' in data"):
        opened("N", "T")


# ---------------------------------------------------------------- spectrograms


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("window", "length"), [("hann", None), ("hamming", 100), ("ones", 101)])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_magnitudes_are_those_of_torch(center, window, length, power):
    signal = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    how = AudioSettings(
        spectrogram="magnitude", n_fft=128, hop=50, window=window, window_length=length,
        center=center, power=power,
    )  # fmt: skip
    size = length or 128
    windows = {
        "hann": torch.hann_window(size, dtype=torch.float64),
        "hamming": torch.hamming_window(size, dtype=torch.float64),
        "ones": torch.ones(size, dtype=torch.float64),
    }
    expected = torch.stft(
        torch.from_numpy(signal).double(), 128, 50, size, windows[window],
        center=center, return_complex=True,
    )  # fmt: skip

    found = compute_spectrogram(signal, how, RATE)

    np.testing.assert_allclose(found, expected.abs().numpy().T ** power, atol=1e-9)


def test_slaney_filters_are_those_that_librosa_documents():
    # librosa.filters.mel(sr=22050, n_fft=2048): areas are 1, and its example of mel_frequencies.
    peaks = [
        85.317, 170.635, 255.952, 341.269, 426.586, 511.904, 597.221, 682.538, 767.855, 853.173,
        938.49, 1024.856, 1119.114, 1222.042, 1334.436, 1457.167, 1591.187, 1737.532, 1897.337,
        2071.84, 2262.393, 2470.47, 2697.686, 2945.799, 3216.731, 3512.582, 3835.643, 4188.417,
        4573.636, 4994.285, 5453.621, 5955.205, 6502.92, 7101.009, 7754.107, 8467.272, 9246.028,
        10096.408,
    ]  # fmt: skip
    how = AudioSettings(n_fft=32768, mels=38, mel_scale="slaney")
    filters = build_mel_filters(how, 22050)
    bin_hz = 22050 / 32768

    np.testing.assert_allclose(filters.argmax(axis=1) * bin_hz, peaks, atol=bin_hz)
    np.testing.assert_allclose(filters.sum(axis=1) * bin_hz, 1, rtol=0.01)


def test_htk_filters_overlap_to_one_and_peak_where_the_formula_says():
    how = AudioSettings(n_fft=16384, mels=20, low_hz=50, high_hz=3500)
    filters = build_mel_filters(how, RATE)
    bin_hz = RATE / 16384
    low, high = (1127 * math.log(1 + f / 700) for f in (50, 3500))
    peaks = [700 * (math.exp((low + (high - low) * (k + 1) / 21) / 1127) - 1) for k in range(20)]

    np.testing.assert_allclose(filters.argmax(axis=1) * bin_hz, peaks, atol=bin_hz)
    inside = slice(math.ceil(peaks[0] / bin_hz), math.floor(peaks[-1] / bin_hz))
    np.testing.assert_allclose(filters.sum(axis=0)[inside], 1)
    assert not filters[:, : math.floor(50 / bin_hz)].any()


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        (("N", "T", 12), "frames-bins", (9, 12)),
        (("N", 1, 12, "T"), "bins-frames", (1, 12, 9)),
        (("N", 9, 12, 1), "frames-bins", (9, 12, 1)),
    ],
)
def test_spectrograms_have_the_axes_of_the_input(tmp_path, opened, shape, layout, expected):
    save(tmp_path / "data" / "a" / "1.wav", tone(1000, 800))
    settings = {"spectrogram": "log-mel", "n_fft": 128, "hop": 80, "mels": 12, "layout": layout}

    rows, _ = opened(*shape, **settings)
    signal = read_wav(tmp_path / "data" / "a" / "1.wav")
    spectrogram = compute_spectrogram(signal, AudioSettings(**settings), RATE)

    assert rows.shape == (1, *expected)
    found = rows.reshape(9, 12) if layout == "frames-bins" else rows.reshape(12, 9).T
    np.testing.assert_allclose(found, spectrogram, rtol=1e-6)


def test_decibels_are_ten_times_the_logarithm():
    signal = tone(1000).astype(np.float32)
    settings = {"spectrogram": "log-mel", "n_fft": 128, "floor": 1e-5}
    natural = compute_spectrogram(signal, AudioSettings(**settings), RATE)
    decibels = compute_spectrogram(signal, AudioSettings(**settings, log="db"), RATE)

    np.testing.assert_allclose(decibels, natural * 10 / math.log(10))
    assert natural.min() == pytest.approx(math.log(1e-5))


def test_the_length_follows_from_the_frames_of_the_model(tmp_path, opened):
    save(tmp_path / "data" / "a" / "1.wav", tone(1000, 5000))
    save(tmp_path / "data" / "a" / "2.wav", tone(1000, 700))

    rows, _ = opened("N", 20, 12, spectrogram="mel", n_fft=128, hop=80, mels=12)

    assert rows.shape == (2, 20, 12)


def test_a_signal_shorter_than_a_frame_is_refused(tmp_path, opened):
    save(tmp_path / "data" / "a" / "1.wav", tone(1000, 100))

    for center in (False, True):
        with pytest.raises(UserError, match="100 values are too few for a frame"):
            opened("N", "T", 40, spectrogram="mel", center=center)


def test_settings_that_contradict_each_other_are_refused():
    for wrong in (
        {"samples": 5, "length_s": 1.0},
        {"n_fft": 100, "window_length": 101},
        {"low_hz": 100.0, "high_hz": 100.0},
    ):
        with pytest.raises(ValueError, match=r"exclude|exceed"):
            AudioSettings(**wrong)
