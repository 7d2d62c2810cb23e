"""Inputs and expected results of the device's code, as JSON for its twin in JavaScript.

``python -m tests.web.vectors FILE`` writes them. An array is ``{"dtype", "shape", "data"}`` with
the bytes in C order, little-endian, as base64. Records have the fields of their dataclasses.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekit_agent.failures import AgentError
from edgekit_agent.session import Session
from tests.builders.apps.model_folders import write_model_folder
from tests.web.step_vectors import (
    Vector,
    describe_refusal,
    encode_array,
    encode_arrays,
    iter_images,
    iter_normalizations,
    iter_postprocess,
    iter_sounds,
    iter_wavs,
    list_windows,
    make_picture,
    make_wav,
)

_HEADS = "g (float[N,4] x) => (float[N,4] y) <float one = {1.0}> { y = Mul(x, one) }"


def build_vectors() -> dict[str, list[Vector]]:
    """Return all vectors by what they are for."""
    return {
        "images": list(iter_images()),
        "normalizations": list(iter_normalizations()),
        "wavs": list(iter_wavs()),
        "sounds": list(iter_sounds()),
        "windows": list(list_windows()),
        "postprocess": list(iter_postprocess()),
        "sessions": list(_iter_sessions()),
    }


def _iter_sessions() -> Iterator[Vector]:
    """Yield settings, a sample, the inputs and outputs of the model, and the answer."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, (text, fields, samples) in enumerate(list_sessions()):
            opset = 12 if "axes = [" in text else 17
            folder = write_model_folder(Path(scratch) / str(number), text, opset=opset, **fields)
            with Session(str(folder)) as session:
                for sample in samples:
                    yield _trace(session, sample)


def _trace(session: Session, sample: Any) -> Vector:
    """Return the way of a sample through a session."""
    vector = {
        "settings": dataclasses.asdict(session.settings),
        "input_kind": session.settings.input_kind,
        "sample": _encode_sample(sample),
    }
    predictor = session._get_predictor()
    try:
        prepared = predictor.reader.read(sample)
        found = predictor.run(prepared, predictor.runner.start())
    except AgentError as error:
        return {**vector, **describe_refusal(error)}
    return {
        **vector,
        "inputs": encode_arrays(found.inputs),
        "outputs": encode_arrays(found.outputs),
        "frames": [encode_array(frame) for frame in found.frames],
        "expected": predictor.describe(prepared, found, 0.0),
    }


def _encode_sample(sample: Any) -> Vector:
    if isinstance(sample, bytes):
        return {"kind": "file", "data": base64.b64encode(sample).decode()}
    if isinstance(sample, np.ndarray):
        return {"kind": "array", **encode_array(sample)}
    return {"kind": "json", "value": sample}


def list_sessions() -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Return models in the text form of onnx, fields of their manifests, and samples."""
    rng = np.random.default_rng(7)
    four = rng.normal(0, 2, (3, 4)).astype(np.float32)
    names = ["one", "two", "", "four"]
    picture = io.BytesIO()
    Image.fromarray(make_picture(30, 40, 2)).save(picture, "PNG")
    single = "g (float[N,3] x) => (float[N,1] y) <float[3,1] w = {1,-1,0.5}> { y = MatMul(x, w) }"
    grid = "g (float[N,H,W,3] x) => (float[N,H,W,3] y) <float k = {0.02}> { y = Mul(x, k) }"
    box = (
        "g (float[1,16,16,3] x) => (float[1,2,6] boxes) <float zero = {0.0}, "
        "float[1,2,6] known = {2,3,9,12,0.75,1, 1,1,15,15,0.5,0}> "
        "{ m = ReduceMax<keepdims = 0>(x) z = Mul(m, zero) boxes = Add(known, z) }"
    )
    stream = (
        "g (float[N,8] x, float[N,1] s) => (float[N,1] y, float[N,1] t) <float half = {0.5}> "
        "{ a = Abs(x) m = ReduceMax<axes = [1], keepdims = 1>(a) "
        "p = Mul(s, half) t = Add(m, p) y = Identity(t) }"
    )
    zero = encode_array(np.zeros(1, np.float32))
    wave = np.repeat([0.0, 0.4, 0.1, 0.7], 12)
    sound = make_wav(1, 16, 1, (wave * 32767).astype("<i2").tobytes())
    boxes = {"kind": "boxes", "size": [16, 16]}
    resized = {"resize": 20, "crop": 16}
    return [
        (_HEADS, {"answer": {"kind": "class", "logits": True}, "class_names": names}, [*four]),
        (_HEADS, {"answer": {"kind": "class"}}, [[0.1, 0.2, 0.6, 0.1], [1, 2], [None], "text"]),
        (
            _HEADS,
            {"answer": {"kind": "labels", "logits": True, "threshold": 0.6}, "class_names": names},
            [*four, [-9, -9, -9, -9]],
        ),
        (_HEADS, {"answer": {"kind": "values"}}, [four[0]]),
        (
            single,
            {
                "answer": {"kind": "class", "logits": True, "threshold": 0.5},
                "class_names": ["no", "yes"],
                "fields": [{"input": "x", "fields": ["age", "weight", "height"]}],
            },
            [
                {"age": 1, "weight": 0.5, "height": 2},
                {"height": "0.5", "age": -1, "weight": 3},
                [1, 2, 3],
                {"age": 1, "weight": 2},
                {"age": 1, "weight": 2, "height": 3, "shoe": 4},
                {"age": 1, "weight": "", "height": 3},
                {"age": 1, "weight": "x", "height": 3},
            ],
        ),
        (
            grid,
            {
                "answer": {"kind": "mask", "class_axis": 2},
                "preprocess": {"size": "own", "scale": 0.5},
                "class_names": ["r", "g", "b"],
            },
            [picture.getvalue(), b"\x89PNG\r\n\x1a\n"],
        ),
        (
            box,
            {
                "answer": {"kind": "boxes"},
                "postprocess": boxes,
                "preprocess": {"resize_mode": "letterbox"},
            },
            [picture.getvalue()],
        ),
        (
            box,
            {
                "answer": {"kind": "boxes"},
                "postprocess": boxes,
                "preprocess": {"resize_mode": "stretch"},
            },
            [picture.getvalue()],
        ),
        (
            box,
            {"answer": {"kind": "boxes"}, "postprocess": boxes, "preprocess": resized},
            [picture.getvalue()],
        ),
        (
            _HEADS.replace("N,4", "N,T,4"),
            {
                "answer": {"kind": "text", "logits": True},
                "postprocess": {"kind": "ctc", "charset": ["a", "b", " "]},
            },
            [rng.normal(0, 2, (7, 4)).astype(np.float32)],
        ),
        (
            stream,
            {
                "answer": {"kind": "decisions", "threshold": 0.3},
                "class_names": ["quiet", "loud"],
                "audio": {"rate": 8000, "samples": 8, "step": 6},
                "input_settings": {
                    "axes": {"x": 0},
                    "states": [{"name": "s", "output": "t", "axis": 0, "initial": zero}],
                },
            },
            [
                sound,
                sound[:-7],
                make_wav(1, 16, 1, b"\0" * 4),
                make_wav(1, 16, 1, b"\0" * 64, 16000),
            ],
        ),
    ]


def write_vectors(path: Path) -> None:
    """Write all vectors as one JSON file."""
    text = json.dumps(build_vectors(), allow_nan=False, default=_to_plain)
    path.write_text(text, encoding="utf-8")


def _to_plain(value: object) -> object:
    if isinstance(value, np.generic):
        plain = value.item()
        return plain if not isinstance(plain, float) or math.isfinite(plain) else None
    raise TypeError(type(value).__name__)


if __name__ == "__main__":
    write_vectors(Path(sys.argv[1]))
