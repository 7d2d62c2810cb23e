"""Inputs and expected results of preprocessing and post-processing, as JSON values."""

from __future__ import annotations

import base64
import dataclasses
import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import stack_rows
from edgekit_agent.postprocess import postprocess
from edgekit_agent.preprocess.audio import convert_wave, iter_windows
from edgekit_agent.preprocess.images import arrange_image
from edgekit_agent.preprocess.settings import Audio, DecodeSettings
from edgekit_agent.preprocess.wav import read_wav, read_wav_format
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Preprocess
from edgekit_agent.scoring import Postprocess

Vector = dict[str, Any]

_LOOK = {
    "resize": None,
    "crop": None,
    "mode": None,
    "size": None,
    "pad": 114,
    "centered": True,
    "reversed_channels": False,
    "gray": False,
}
_LOOKS = (
    {},
    {"resize": 20},
    {"resize": 24, "crop": 16},
    {"crop": 10},
    {"mode": "stretch", "size": (16, 24)},
    {"mode": "stretch", "size": (64, 48)},
    {"mode": "letterbox", "size": (32, 32)},
    {"mode": "letterbox", "size": (48, 40), "pad": 0, "centered": False},
    {"mode": "letterbox", "size": (16, 64), "reversed_channels": True},
    {"resize": 12, "crop": 12, "gray": True},
    {"mode": "stretch", "size": (20, 20), "gray": True, "reversed_channels": False},
)
_AUDIO = (
    {},
    {"spectrogram": "magnitude", "n_fft": 64, "hop": 32, "power": 1.0},
    {"spectrogram": "mel", "n_fft": 128, "hop": 50, "mels": 12, "window": "hamming"},
    {"spectrogram": "log-mel", "n_fft": 160, "hop": 80, "mels": 16, "mel_scale": "slaney"},
    {"spectrogram": "log-mel", "n_fft": 200, "hop": 80, "mels": 10, "log": "db", "floor": 1e-5},
    {
        "spectrogram": "log-mel",
        "n_fft": 256,
        "hop": 100,
        "window_length": 200,
        "mels": 8,
        "center": True,
        "low_hz": 100.0,
        "high_hz": 3000.0,
        "layout": "bins-frames",
    },
    {"spectrogram": "magnitude", "n_fft": 100, "hop": 100, "window": "ones"},
)


def encode_array(values: object) -> Vector:
    """Return an array as JSON values."""
    array = np.ascontiguousarray(values)
    data = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(np.shape(values)), "data": data}


def encode_arrays(arrays: dict[str, Any]) -> dict[str, Vector]:
    return {name: encode_array(value) for name, value in arrays.items()}


def iter_images() -> Iterator[Vector]:
    """Yield images as pixels, with what decoding makes of them after the file is decoded."""
    for number, changes in enumerate(_LOOKS):
        for height, width in ((30, 41), (52, 26), (16, 16)):
            look = DecodeSettings(**{**_LOOK, **changes})
            values = make_picture(height, width, number)
            image = Image.fromarray(values).convert("L" if look.gray else "RGB")
            try:
                pixels = arrange_image(image, look, "the image")
            except AgentError as error:
                yield describe_refusal(error) | {
                    "look": dataclasses.asdict(look),
                    "image": encode_array(values),
                }
                continue
            found = {f.name: getattr(pixels, f.name) for f in dataclasses.fields(pixels)}
            found["values"] = encode_array(found["values"])
            yield {
                "look": dataclasses.asdict(look),
                "image": encode_array(values),
                "expected": found,
            }


def make_picture(height: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    """Return pixels [height, width, 3] with edges, slopes and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    slope = 255 * columns / width
    blocks = 255 * ((rows // 5 + columns // 7) % 2)
    noise = rng.integers(0, 256, (height, width))
    return np.stack([slope, blocks, noise], axis=-1).astype(np.uint8)


def iter_normalizations() -> Iterator[Vector]:
    """Yield rows and the inputs that they become."""
    rows = make_picture(6, 5, 3)[np.newaxis]
    for preprocess, shape in (
        (Preprocess(), ("N", 6, 5, 3)),
        (Preprocess(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True), ("N", 3, 6, 5)),
        (Preprocess(1.0, (127.5,), (127.5,), False), (1, 6, 5, 3)),
    ):
        tensor = Tensor("x", "float32", shape)
        yield {
            "preprocess": dataclasses.asdict(preprocess),
            "tensor": dataclasses.asdict(tensor),
            "axis": 0,
            "batch": 1,
            "rows": encode_array(rows[0]),
            "expected": encode_array(stack_rows(rows, tensor, preprocess, 0, 1)),
        }


def iter_wavs() -> Iterator[Vector]:
    rng = np.random.default_rng(4)
    floats = rng.uniform(-1, 1, 30)
    bodies = {
        "8 bits": (1, 8, 1, (floats * 100 + 128).astype("u1").tobytes()),
        "16 bits": (1, 16, 1, (floats * 30000).astype("<i2").tobytes()),
        "stereo": (1, 16, 2, (floats * 30000).astype("<i2").tobytes()),
        "24 bits": (
            1,
            24,
            1,
            b"".join(int(v * 8e6).to_bytes(3, "little", signed=True) for v in floats),
        ),
        "32 bits": (1, 32, 1, (floats * 2e9).astype("<i4").tobytes()),
        "floats": (3, 32, 1, floats.astype("<f4").tobytes()),
        "doubles": (3, 64, 3, floats.astype("<f8").tobytes()),
        "1 bit": (1, 1, 1, b"\0" * 8),
        "mu-law": (7, 8, 1, b"\0" * 8),
        "no channels": (1, 16, 0, b"\0" * 8),
        "NaN": (3, 32, 1, np.array([0, np.nan], "<f4").tobytes()),
    }
    files = {name: make_wav(*body) for name, body in bodies.items()}
    whole = files["16 bits"]
    files["truncated"] = whole[:-10]
    files["claims 2 GiB"] = whole[:40] + struct.pack("<I", (1 << 31) - 1) + whole[44:]
    files["unknown size"] = whole[:40] + b"\xff" * 4 + whole[44:]
    files["other chunk"] = whole[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + whole[12:]
    files["empty"] = b""
    files["no data"] = whole[:36]
    for name, data in files.items():
        vector = {"name": name, "bytes": base64.b64encode(data).decode()}
        try:
            wave = read_wav(io.BytesIO(data), "the recording")
            rate = read_wav_format(io.BytesIO(data), "the recording").rate
        except AgentError as error:
            yield {**vector, **describe_refusal(error)}
            continue
        yield {**vector, "rate": rate, "expected": encode_array(wave)}


def make_wav(kind: int, bits: int, channels: int, data: bytes, rate: int = 8000) -> bytes:
    """Return a .wav file."""
    head = struct.pack("<HHIIHH", kind, channels, rate, 0, channels * bits // 8, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def iter_sounds() -> Iterator[Vector]:
    rng = np.random.default_rng(5)
    times = np.arange(700) / 8000
    wave = 0.4 * np.sin(2 * np.pi * 900 * times * (1 + times)) + 0.1 * rng.normal(0, 1, 700)
    wave = wave.astype(np.float32)
    for changes in _AUDIO:
        audio = Audio(rate=8000, **changes)  # type: ignore[arg-type]
        yield {
            "audio": dataclasses.asdict(audio),
            "wave": encode_array(wave),
            "expected": encode_array(np.asarray(convert_wave(wave, audio), np.float32)),
        }


def list_windows() -> Iterator[Vector]:
    wave = np.arange(1, 24, dtype=np.float32)
    for window, step in ((5, 5), (8, 5), (4, 3)):
        yield {
            "window": window,
            "step": step,
            "wave": encode_array(wave),
            "expected": [encode_array(each) for each in iter_windows(wave, window, step)],
        }


def iter_postprocess() -> Iterator[Vector]:
    rng = np.random.default_rng(6)
    cells = sum((64 // stride) ** 2 for stride in (8, 16, 32))
    yolox = rng.normal(0, 1, (cells, 8)).astype(np.float32)
    yolox[:, 4:] = rng.uniform(0, 1, (cells, 4)) ** 3
    decoded = rng.uniform(0, 1, (60, 8)).astype(np.float32)
    decoded[:, :4] *= 64
    scores, boxes = rng.uniform(0, 1, (40, 3)), np.sort(rng.uniform(0, 1, (40, 4)))[:, [0, 2, 1, 3]]
    letterbox = {"letterbox": np.array([0.5, 3.0, 0.0, 100.0, 128.0])}
    size = (64, 64)
    logits = rng.normal(0, 2, (9, 5)).astype(np.float32)
    cases: list[tuple[Postprocess, dict[str, Any], dict[str, Any]]] = [
        (Postprocess("yolox", size=size), {"y": yolox}, {}),
        (Postprocess("yolox", size=size, score_min=0.3), {"y": yolox}, letterbox),
        (Postprocess("yolov5", size=size, nms_iou=0.3, most=7), {"y": decoded}, letterbox),
        (Postprocess("yolov8", size=size), {"y": decoded[:, :7].T}, {}),
        (
            Postprocess("distances", size=size, score_min=0.5),
            {
                "s": rng.uniform(0, 1, (cells, 2)).astype(np.float32),
                "d": rng.normal(0, 1, (cells, 32)).astype(np.float32),
            },
            letterbox,
        ),
        (
            Postprocess("boxes", ("b", "s"), size, box_unit="share", background=0, first_class=1),
            {"b": boxes.astype(np.float32), "s": scores.astype(np.float32)},
            letterbox,
        ),
        (
            Postprocess("boxes", ("b", "s", "c", "n"), size, box_format="yxyx", box_unit="share"),
            {
                "b": boxes.astype(np.float32),
                "s": scores[:, 0].astype(np.float32),
                "c": rng.integers(0, 3, 40).astype(np.float32),
                "n": np.array([25], np.float32),
            },
            {},
        ),
        (Postprocess("ctc", charset=tuple("abc "), blank=0), {"y": logits}, {}),
        (Postprocess("ctc", charset=tuple("abcd"), blank=4), {"y": logits[:, None, :]}, {}),
        (Postprocess("argmax"), {"y": rng.normal(0, 1, (3, 5, 6)).astype(np.float32)}, {}),
        (Postprocess("softmax"), {"y": logits[0], "z": logits[1]}, {}),
        (Postprocess("sigmoid", ("y",)), {"y": logits, "z": logits}, {}),
        (Postprocess("threshold", threshold=0.25), {"y": logits}, {}),
    ]
    for settings, outputs, targets in cases:
        yield {
            "settings": dataclasses.asdict(settings),
            "outputs": encode_arrays(outputs),
            "targets": encode_arrays(targets),
            "expected": encode_arrays(postprocess(outputs, targets, settings)),
        }


def describe_refusal(error: AgentError) -> Vector:
    """Return the failure of a sample."""
    return {"error": dataclasses.asdict(error.failure)}
