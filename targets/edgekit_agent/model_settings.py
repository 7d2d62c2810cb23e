"""Settings of a model in its folder: how to feed it, run it and read its answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from edgekit_agent import strictjson
from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_regular
from edgekit_agent.postprocess import DETECTORS
from edgekit_agent.preprocess.settings import (
    Audio,
    DecodeSettings,
    InputSettings,
    RowFields,
    StoredArray,
    Text,
)
from edgekit_agent.protocol import PROTOCOL, Version
from edgekit_agent.releases.provenance import MANIFEST, MOST_MANIFEST_BYTES
from edgekit_agent.releases.records import MOST_RELATIVE_ERROR, MOST_THREADS, PLAIN_NAME
from edgekit_agent.runtimes import TABLE, Tensor
from edgekit_agent.samples import Preprocess
from edgekit_agent.scoring import Answer, Postprocess

ANSWERS = ("class", "labels", "boxes", "mask", "text", "decisions", "values")
TOKENIZER = "tokenizer.json"
_SCHEMAS = (1, 2)
_MOST_TENSORS, _MOST_AXES, _MOST_SIZE = 1000, 64, 1 << 31
_MOST_SIDE, _MOST_NAMES, _MOST_NAME = 1 << 14, 1 << 20, 200
_MOST_CONSTANT_BYTES = 1 << 26
_DTYPES = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64")
_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
_AUDIO_CHOICES: Dict[str, Tuple[Optional[str], ...]] = {
    "spectrogram": (None, "log-mel", "mel", "magnitude"),
    "window": ("hann", "hamming", "ones"),
    "mel_scale": ("htk", "slaney"),
    "log": ("ln", "db"),
    "layout": ("frames-bins", "bins-frames"),
}
# Fields that this version does not know are ignored, as the host may be newer.
_NEWER = Version(PROTOCOL.major, PROTOCOL.minor + 1)


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a model.

    Attributes:
        name: name of the bundle.
        model: file of the model in the folder.
        digest: sha256 of this file.
        runtime: ``onnxruntime`` or ``litert``.
        threads: threads of the runtime.
        golden_samples: file of the golden samples.
        max_relative_error: largest error of the golden samples.
        inputs: inputs of the model.
        outputs: outputs of the model.
        images: how images are decoded; ``None`` = the model takes none.
        preprocess: normalization of float inputs.
        audio: how sounds become the input.
        text: how texts become the inputs.
        fields: names of the fields of a row.
        feeding: constants, states and axes of the samples.
        postprocess: post-processing of the outputs.
        answer: how outputs become an answer.
        class_names: names of the classes; empty where there is none.
    """

    name: str
    model: str
    digest: str
    runtime: str
    threads: int
    golden_samples: str
    max_relative_error: float
    inputs: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]
    images: Optional[DecodeSettings] = None
    preprocess: Optional[Preprocess] = None
    audio: Optional[Audio] = None
    text: Optional[Text] = None
    fields: Tuple[RowFields, ...] = ()
    feeding: InputSettings = field(default_factory=InputSettings)
    postprocess: Optional[Postprocess] = None
    answer: Answer = field(default_factory=Answer)
    class_names: Tuple[str, ...] = ()

    @property
    def sample_inputs(self) -> Tuple[Tensor, ...]:
        """Return the inputs that each sample feeds."""
        others = _list_fed(self.feeding)
        return tuple(tensor for tensor in self.inputs if tensor.name not in others)

    @property
    def input_kind(self) -> str:
        """Return what a sample is: ``text``, ``audio``, ``image`` or ``row``."""
        if self.text is not None:
            return "text"
        if self.audio is not None:
            return "audio"
        return "image" if self.images is not None and not self.fields else "row"

    def get_label(self, number: int) -> str:
        """Return the name of a class, else its number."""
        known = 0 <= number < len(self.class_names)
        return (self.class_names[number] if known else "") or str(number)


def read_model_settings(folder: str) -> ModelSettings:
    """Read the settings of a model from the manifest in its folder.

    Raises:
        AgentError: ``missing_file``: there is no manifest; ``bad_bundle``: it is damaged, or of a
            later version of edgekit.
    """
    path = os.path.join(folder, MANIFEST)
    try:
        with open_regular(path) as file:
            manifest = strictjson.load(file, MOST_MANIFEST_BYTES)
        if not isinstance(manifest, dict):
            raise ValueError("not a JSON object")
        if manifest.get("schema_version", 1) not in _SCHEMAS:
            raise ValueError("written by a later edgekit; install a later edgekit here too")
        return parse_manifest(manifest)
    except FileNotFoundError as error:
        raise AgentError(
            "missing_file",
            f"{path}: there is no such file",
            hint="give the folder that 'edgekit build' wrote, or that of an installed model",
        ) from error
    except (OSError, ValueError) as error:
        raise AgentError(
            "bad_bundle", f"{path}: not a manifest that can be read: {error}", hint="build it again"
        ) from error


def parse_manifest(manifest: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of the model of a manifest, which may be of an earlier version.

    Raises:
        ValueError: a field is missing, wrong or out of its limits; the text says which.
    """
    try:
        return _parse(manifest)
    except KeyError as error:
        raise ValueError(f"{error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a field has another type than it must: {error}") from error


def _parse(manifest: Mapping[str, Any]) -> ModelSettings:
    inputs = _read_tensors(manifest["inputs"], "inputs")
    table = manifest.get("preprocess")
    golden = manifest.get("golden_samples") or manifest.get("canaries") or "golden.npz"
    model = _check_name(manifest["model"], "model")
    names = manifest.get("class_names") or ()
    settings = ModelSettings(
        name=_check_text(manifest["name"], "name"),
        model=model,
        digest=_find_digest(manifest["files"], model),
        runtime=_check_runtime(manifest["runtime"]["name"]),
        threads=int(_check_number(manifest["runtime"]["threads"], 1, MOST_THREADS, "threads")),
        golden_samples=_check_name(golden, "golden_samples"),
        max_relative_error=_check_number(
            manifest.get("max_relative_error", 0.1), 0, MOST_RELATIVE_ERROR, "max_relative_error"
        ),
        inputs=inputs,
        outputs=_read_tensors(manifest["outputs"], "outputs"),
        images=None
        if manifest.get("takes_images") is False
        else _build_decode_settings(inputs, table),
        preprocess=_build_preprocess(table) if table else None,
        audio=_decode(Audio, manifest.get("audio")),
        text=_decode(Text, manifest.get("text")),
        fields=_decode_all(RowFields, manifest.get("fields")),
        feeding=_decode(InputSettings, manifest.get("input_settings")) or InputSettings(),
        postprocess=_decode(Postprocess, manifest.get("postprocess")),
        answer=_decode(Answer, manifest.get("answer")) or _guess_answer(manifest),
        class_names=tuple(_check_text(name, "class_names") for name in _check_list(names)),
    )
    check_model_settings(settings)
    return settings


def check_model_settings(settings: ModelSettings) -> None:
    """Check that the fields of settings are within their limits and belong together.

    Raises:
        ValueError: one is not; the text says which.
    """
    answer, inputs = settings.answer, {tensor.name for tensor in settings.inputs}
    outputs = {tensor.name for tensor in settings.outputs}
    if answer.kind not in ANSWERS:
        raise ValueError(f"answer.kind: {answer.kind[:40]!r} is not one of {', '.join(ANSWERS)}")
    if answer.output is not None and answer.output not in outputs:
        raise ValueError(f"answer.output: there is no output {answer.output[:40]!r}")
    named = [
        *_list_fed(settings.feeding),
        *(settings.feeding.axes or {}),
        *(each.input for each in settings.fields),
    ]
    if settings.text is not None:
        named += list(settings.text.roles or {})
        _check_name(settings.text.tokenizer, "text.tokenizer")
    for name in named:
        if name not in inputs:
            raise ValueError(f"there is no input {name[:40]!r}")
    for state in settings.feeding.states:
        if state.output not in outputs:
            raise ValueError(f"input_settings: there is no output {state.output[:40]!r}")
        _check_array(state.initial, f"input_settings: {state.name}")
    for constant in settings.feeding.constants:
        _check_array(constant.value, f"input_settings: {constant.name}")
    if settings.audio is not None:
        _check_audio(settings.audio)


def _list_fed(feeding: InputSettings) -> List[str]:
    """Return the names of the inputs that no sample feeds."""
    return [each.name for each in feeding.constants] + [each.name for each in feeding.states]


def _decode(cls: Any, value: Any) -> Any:  # noqa: ANN401 - a record of the class
    return None if value is None else decode(cls, value, peer=_NEWER)


def _decode_all(cls: Any, values: Any) -> Any:  # noqa: ANN401 - records of the class
    return tuple(_decode(cls, value) for value in _check_list(values or ()))


def _guess_answer(manifest: Mapping[str, Any]) -> Answer:
    """Return how outputs become an answer, for a bundle that does not tell: by post-processing."""
    kinds = {"ctc": "text", "argmax": "mask", "softmax": "class"}
    table = manifest.get("postprocess") or {}
    kind = table.get("kind", "")
    found = "boxes" if kind in DETECTORS else kinds.get(kind, "values")
    if found == "values" and manifest.get("metric") in ("top1", "top5", "binary"):
        found = "class"
    return Answer(kind=found, output=manifest.get("output"))


def _read_tensors(values: Any, where: str) -> Tuple[Tensor, ...]:  # noqa: ANN401 - any JSON value
    listed = _check_list(values)
    if not 0 < len(listed) <= _MOST_TENSORS:
        raise ValueError(f"{where}: {len(listed)} tensors")
    found = []
    for value in listed:
        dtype, shape = value["dtype"], _check_list(value["shape"])
        if dtype not in _DTYPES + _UNSIGNED or len(shape) > _MOST_AXES:
            raise ValueError(f"{where}: not the type of a tensor: {str(dtype)[:40]!r}")
        found.append(Tensor(_check_text(value["name"], where), dtype, _read_shape(shape, where)))
    return tuple(found)


def _read_shape(shape: List[Any], where: str) -> Tuple[Any, ...]:
    for dim in shape:
        is_size = type(dim) is int and 0 <= dim < _MOST_SIZE
        if not (is_size or dim is None or isinstance(dim, str)):
            raise ValueError(f"{where}: not a size: {str(dim)[:40]}")
    return tuple("?" if dim is None else dim for dim in shape)


def _build_preprocess(table: Mapping[str, Any]) -> Preprocess:
    """Return the normalization of ``[data.preprocess]``."""
    mean, std = (
        tuple(
            _check_number(each, -1e30, 1e30, key)
            for each in (value if isinstance(value, list) else [value])
        )
        for key, value in (("mean", table.get("mean", 0.0)), ("std", table.get("std", 1.0)))
    )
    scale = _check_number(table.get("scale", 1.0), -1e30, 1e30, "scale")
    return Preprocess(scale, mean, std, table.get("layout") == "NCHW")


def _build_decode_settings(
    inputs: Tuple[Tensor, ...], given: Optional[Mapping[str, Any]]
) -> Optional[DecodeSettings]:
    """Return how images are decoded; ``None`` if no input takes images.

    Without a setting that gives images the size of the input, they are stretched to it.
    """
    table = given or {}
    _check_choice(table.get("resize_mode"), (None, "letterbox", "stretch"), "resize_mode")
    resize, crop = (_check_side(table.get(key), key) for key in ("resize", "crop"))
    shapes = [tensor.shape for tensor in inputs if len(tensor.shape) == 4]
    if len(shapes) != 1 or (given is None and shapes[0][3] not in (1, 3)):
        return None
    shape = shapes[0]
    is_gray = 1 in (shape[1], shape[3])
    height, width = shape[2:] if table.get("layout") == "NCHW" else shape[1:3]
    own = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    size, mode = table.get("size"), table.get("resize_mode")
    keeps_sizes = size == "own"
    wanted = own if size is None or keeps_sizes else tuple(_check_list(size))
    if own and not (mode or resize or crop or keeps_sizes):
        mode = "stretch"
    if own and resize and not crop and own[0] == own[1] <= resize:
        crop = own[0]
    return DecodeSettings(
        resize=resize,
        crop=crop,
        mode=mode,
        size=_check_size(wanted) if mode and wanted else None,
        pad=int(_check_number(table.get("pad", 114), 0, 255, "pad")),
        centered=table.get("pad_position", "center") == "center",
        reversed_channels=table.get("order") == "BGR" and not is_gray,
        gray=is_gray,
        keeps_sizes=keeps_sizes or not (own or wanted or crop),
    )


def _check_size(size: Sequence[Any]) -> Tuple[int, int]:
    if len(size) != 2:
        raise ValueError("size: not two numbers")
    return _check_side(size[0], "size") or 1, _check_side(size[1], "size") or 1


def _check_side(value: Any, where: str) -> Optional[int]:  # noqa: ANN401 - any JSON value
    return None if value is None else int(_check_number(value, 1, _MOST_SIDE, where))


def _check_audio(audio: Audio) -> None:
    limits = {"rate": 1_000_000, "samples": 1 << 24, "step": 1 << 24, "n_fft": 1 << 16}
    limits.update({"hop": 1 << 24, "window_length": audio.n_fft, "mels": 1024})
    for name, most in limits.items():
        value = getattr(audio, name)
        if value is not None:
            _check_number(value, 2 if name == "n_fft" else 1, most, f"audio.{name}")
    for name, known in _AUDIO_CHOICES.items():
        _check_choice(getattr(audio, name), known, f"audio.{name}")
    _check_number(audio.power, 1e-9, 4, "audio.power")
    _check_number(audio.floor, 1e-300, 1e30, "audio.floor")
    if audio.step is not None and (audio.samples or audio.step) < audio.step:
        raise ValueError("audio.step is larger than audio.samples")


def _check_choice(value: object, known: Tuple[object, ...], where: str) -> None:
    if value not in known:
        listed = ", ".join(str(each) for each in known if each is not None)
        raise ValueError(f"{where}: {str(value)[:40]!r} is not one of {listed}")


def _check_array(array: StoredArray, where: str) -> None:
    size = 8
    for length in array.shape:
        size *= int(_check_number(length, 0, _MOST_SIZE, where))
    if array.dtype not in _DTYPES + _UNSIGNED or size > _MOST_CONSTANT_BYTES:
        raise ValueError(f"{where}: not an array of up to {_MOST_CONSTANT_BYTES >> 20} MiB")


def _find_digest(files: Any, name: str) -> str:  # noqa: ANN401 - any JSON value
    found = [file["digest"] for file in _check_list(files) if file["name"] == name]
    if len(found) != 1:
        raise ValueError(f"files: {name} is missing")
    return _check_text(found[0], "files")


def _check_list(value: Any) -> List[Any]:  # noqa: ANN401 - any JSON value
    if not isinstance(value, (list, tuple)) or len(value) > _MOST_NAMES:
        raise ValueError(f"not a list, or too long a one: {str(value)[:40]!r}")
    return list(value)


def _check_text(value: Any, where: str) -> str:  # noqa: ANN401 - any JSON value
    if not isinstance(value, str) or len(value) > _MOST_NAME:
        raise ValueError(f"{where}: not a name: {str(value)[:40]!r}")
    return value


def _check_name(value: Any, where: str) -> str:  # noqa: ANN401 - any JSON value
    if not isinstance(value, str) or not PLAIN_NAME.fullmatch(value):
        raise ValueError(f"{where}: not the name of a file: {str(value)[:40]!r}")
    return value


def _check_runtime(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value not in TABLE:
        raise ValueError(f"runtime: {str(value)[:40]!r} is not one of {', '.join(TABLE)}")
    return str(value)


def _check_number(value: Any, least: float, most: float, where: str) -> float:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{where}: {str(value)[:40]} must be {least:g} to {most:g}")
    return value
