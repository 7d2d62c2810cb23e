"""Synthetic but realistic samples for the corpus: photos, text, speech, music, files.

Every maker returns a function ``(model path, seed, count) -> arrays by input name``, with the
samples along the first axis. The only input of a model may be called ``x``. Steps of several
sequences come with their sequence numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from benchmarks.corpus_decoder import HEADS, WIDTH, cache_names, text

Arrays = dict[str, NDArray[np.generic]]
Maker = Callable[[Path, int, int], Arrays]
RATE = 16000
# Array with the sequence number of each step, and the number of steps in a sequence.
SEQUENCE, _STEPS = "sequence", 16


def session(path: Path, *, optimized: bool = True) -> ort.InferenceSession:
    """Open an onnxruntime session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


# ------------------------------------------------------------ images


def photos(name: str, size: int, *, layout: str = "NCHW", low: float = 0.0) -> Maker:
    """Make random crops of two photos, mirrored and of varying brightness, from ``low`` to 1."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        whole = [Image.fromarray(image) for image in load_sample_images().images]
        made = np.stack([_crop(rng, whole[n % len(whole)], size) for n in range(count)])
        made = low + made * (1 - low)
        return {name: made if layout == "NHWC" else made.transpose(0, 3, 1, 2).copy()}

    return make


def _crop(rng: np.random.Generator, image: Image.Image, size: int) -> NDArray[np.float32]:
    side = int(min(image.size) * rng.uniform(0.3, 0.95))
    left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
    part = image.crop((left, top, left + side, top + side)).resize((size, size))
    values = np.asarray(part, np.float32) / 255 * rng.uniform(0.6, 1.1)
    return np.clip(values[:, ::-1] if rng.random() < 0.5 else values, 0, 1).astype(np.float32)


def lines_of_text(name: str, width: int) -> Maker:
    """Make images of printed lines of words and numbers, 48 pixels high, from -1 to 1."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {name: np.stack([_line(rng, width) for _ in range(count)])}

    return make


def _line(rng: np.random.Generator, width: int) -> NDArray[np.float32]:
    dark, light = rng.integers(0, 90), rng.integers(150, 256)
    ink, paper = (dark, light) if rng.random() < 0.8 else (light, dark)
    image = Image.new("L", (width, 48), int(paper))
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHKLMNPRST0123456789 .-"
    words = "".join(letters[n] for n in rng.integers(0, len(letters), 24))
    font = ImageFont.load_default(int(rng.integers(18, 34)))
    ImageDraw.Draw(image).text((4, int(rng.integers(2, 12))), words, fill=int(ink), font=font)
    values = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(0, 10), (48, width))
    values = np.clip(values, 0, 255) / 127.5 - 1
    return np.repeat(values[None], 3, axis=0).astype(np.float32)


# ------------------------------------------------------------ sound


def speech(rng: np.random.Generator, length: int, rate: int = RATE) -> NDArray[np.float32]:
    """Synthesize speech-like sound in noise: harmonics, formants, syllables and pauses."""
    time = np.arange(length) / rate
    pitch = rng.uniform(90, 240) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = rng.uniform([300, 900, 2200], [800, 2000, 3200])
    voice = np.zeros(length)
    for number in range(1, 25):
        height = sum(np.exp(-(((number * pitch - f) / 250) ** 2)) for f in formants)
        voice += (height + 0.02) * np.sin(number * phase)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time + rng.uniform(0, 6)), 0, 1)
    pauses = np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * time + rng.uniform(0, 6)) > -0.2
    voice *= syllables * pauses
    voice /= np.abs(voice).max() + 1e-6
    noise = rng.normal(size=length) * 10 ** rng.uniform(-3, -1)
    return (rng.uniform(0.1, 0.7) * voice + noise).clip(-1, 1).astype(np.float32)


def clips(name: str, length: int, *, scale: float = 1.0) -> Maker:
    """Make clips of speech-like sound in noise."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {name: np.stack([scale * speech(rng, length) for _ in range(count)])}

    return make


def chords(name: str, length: int) -> Maker:
    """Make decaying chords of a few notes with overtones, at 22,050 Hz."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        time = np.arange(length) / 22050
        made = np.zeros((count, length))
        for row in made:
            for note in rng.integers(40, 84, size=rng.integers(3, 9)):
                start = rng.uniform(0, time[-1] * 0.8)
                tail = np.clip(time - start, 0, None)
                sound = sum(
                    np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * part * tail) / part
                    for part in range(1, 6)
                )
                row += sound * np.exp(-3 * tail) * (time >= start)
            row /= 1.2 * np.abs(row).max()
            row += rng.normal(size=length) * 1e-3
        return {name: made[..., None].astype(np.float32)}

    return make


def frames_with_states(name: str, length: int, hop: int) -> Maker:
    """Make overlapping frames of speech recordings, and the model's states along them."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng, run = np.random.default_rng(seed), session(path)
        frames: list[NDArray[np.float32]] = []
        states: list[NDArray[np.float32]] = []
        for steps in _recordings(count):
            sound = speech(rng, hop * steps + length)
            state = np.zeros((2, 1, 128), np.float32)
            for n in range(steps):
                frames.append(sound[hop * n : hop * n + length])
                states.append(state)
                feed = {name: frames[-1][None], "state": state, "sr": np.array(RATE, np.int64)}
                state = run.run(["stateN"], feed)[0]
        rate = np.full(count, RATE, np.int64)
        made = {name: np.stack(frames), "state": np.concatenate(states, axis=1), "sr": rate}
        return made | {SEQUENCE: _sequence_numbers(count)}

    return make


def _recordings(count: int) -> list[int]:
    """Return the length of each recording in steps; together they have ``count`` steps."""
    return [min(_STEPS, count - start) for start in range(0, count, _STEPS)]


def _sequence_numbers(count: int) -> NDArray[np.int64]:
    """Return the number of the recording of each step."""
    return np.arange(count, dtype=np.int64) // _STEPS


def spectra_with_states(name: str, state_name: str) -> Maker:
    """Make magnitude spectra of 512-sample windows, and the model's states along them."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng, run = np.random.default_rng(seed), session(path)
        after = run.get_outputs()[1].name
        frames: list[NDArray[np.float32]] = []
        states: list[NDArray[np.float32]] = []
        for steps in _recordings(count):
            sound = speech(rng, 128 * steps + 512)
            state = np.zeros((1, 2, 128, 2), np.float32)
            for n in range(steps):
                window = sound[128 * n : 128 * n + 512]
                frames.append(np.abs(np.fft.rfft(window)).astype(np.float32)[None])
                states.append(state[0])
                state = run.run([after], {name: frames[-1][None], state_name: state})[0]
        made = {name: np.stack(frames), state_name: np.stack(states)}
        return made | {SEQUENCE: _sequence_numbers(count)}

    return make


def log_spectra(name: str, *, frames: int = 40) -> Maker:
    """Make log power spectra of 320-sample windows, the inputs of denoisers."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        made = []
        for _ in range(count):
            sound = speech(rng, 160 * frames + 320)
            windows = np.stack([sound[160 * n : 160 * n + 320] for n in range(frames)])
            power = np.abs(np.fft.rfft(windows * np.sqrt(np.hanning(320)))) ** 2
            made.append(np.log10(np.maximum(power, 1e-12)))
        return {name: np.asarray(made, np.float32)}

    return make


def _mel(rng: np.random.Generator, frames: int, bands: int) -> NDArray[np.float32]:
    """Compute a log mel spectrogram of speech in 10 ms steps, roughly from 0 to 4."""
    sound = speech(rng, 160 * frames + 512)
    windows = np.stack([sound[160 * n : 160 * n + 512] for n in range(frames)])
    power = np.abs(np.fft.rfft(windows * np.hanning(512))) ** 2
    edges = 700 * (10 ** (np.linspace(28, 2595 * np.log10(1 + 3800 / 700), bands + 2) / 2595) - 1)
    bins = np.arange(257) * RATE / 512
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    mel = power @ np.clip(np.minimum(rising, falling), 0, None).T
    return (np.log10(np.maximum(mel, 1e-6)) / 2 + 2.5).astype(np.float32)


def mel_windows(name: str, *, dtype: str = "float32") -> Maker:
    """Make mel windows of 76 steps and 32 bands."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {name: np.stack([_mel(rng, 76, 32)[..., None] for _ in range(count)]).astype(dtype)}

    return make


def mel_steps(name: str) -> Maker:
    """Make consecutive windows of three mel steps with 40 bands, roughly from 0 to 26."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        mel = _mel(rng, 3 * count, 40).reshape(count, 3, 40)
        return {name: (6.5 * mel).clip(0, 26)}

    return make


# ------------------------------------------------------------ text and files


def tokens_with_cache(*, new: int = 8, past: int = 40) -> Maker:
    """Make tokens of Python code, and the cache of the decoder after the preceding tokens."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng, codes, run = np.random.default_rng(seed), text(), session(path)
        starts = rng.integers(0, len(codes) - new - past, count)
        rows = np.stack([codes[s : s + past + new] for s in starts])
        empty = np.zeros((count, HEADS, 0, WIDTH // HEADS), np.float32)
        feed = {"ids": rows[:, :past]} | {f"past_{name}": empty for name in cache_names()}
        cache = run.run([f"present_{name}" for name in cache_names()], feed)
        named = {f"past_{n}": v for n, v in zip(cache_names(), cache, strict=True)}
        return {"ids": rows[:, past:], **named}

    return make


def file_bytes(name: str) -> Maker:
    """Make the first and last 1,024 bytes of files that ship with Python, padded with 256."""

    def make(path: Path, seed: int, count: int) -> Arrays:
        rng = np.random.default_rng(seed)
        folders = (Path(np.__file__).parent, Path(sys.executable).resolve().parent)
        files = [f for d in folders for f in sorted(d.rglob("*")) if f.is_file()]
        made = np.full((count, 2048), 256, np.int32)
        for row, number in zip(made, rng.permutation(len(files))[:count], strict=True):
            content = np.frombuffer(files[number].read_bytes(), np.uint8)
            head, tail = content[:1024], content[-1024:]
            row[: len(head)] = head
            row[2048 - len(tail) :] = tail
        return {name: made}

    return make
