"""Base files of the fuzzing benchmark, and runs of edgekit on damaged variants in process."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from benchmarks.fuzz.inputs import (
    mutate_bytes,
    mutate_json,
    mutate_onnx,
    mutate_text,
    mutate_tflite,
    mutate_zip,
)
from edgekit.errors import EdgekitError, ExitCode

KINDS = ("onnx", "tflite", "npz", "toml", "manifest", "bundle", "answers")
ENDINGS = {"onnx": "m.onnx", "tflite": "m.tflite", "npz": "c.npz", "bundle": "m.edgekit"}
_GRAPHS = {
    "dense": "g (float[N, 8] x) => (float[N, 4] y) { h = MatMul(x, w) y = Relu(h) }",
    "conv": "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {"
    " h = Conv<kernel_shape=[3, 3]>(x, k) y = Clip(h, lo, hi) }",
    "shapes": "g (float[N, 8] x) => (float[N, 2, 4] y) { h = Reshape(x, s)"
    " p = Transpose<perm=[0, 2, 1]>(h) y = Transpose<perm=[0, 2, 1]>(p) }",
    "branch": "g (float[N, 8] x, bool c) => (float[N, 8] y) { y = If (c) <"
    "then_branch = t () => (float[N, 8] a) { a = Relu(x) },"
    "else_branch = e () => (float[N, 8] b) { b = Neg(x) } > }",
    "quantized": "g (float[N, 8] x) => (float[N, 4] y) { q = QuantizeLinear(x, sc, zp)"
    " d = DequantizeLinear(q, sc, zp) y = MatMul(d, w) }",
}
_STORED: dict[str, Any] = {
    "w": np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4),
    "k": np.linspace(-1, 1, 108, dtype=np.float32).reshape(4, 3, 3, 3),
    "lo": np.float32(-1),
    "hi": np.float32(1),
    "s": np.array([0, 2, 4], np.int64),
    "sc": np.float32(0.1),
    "zp": np.uint8(128),
}
_PROJECT = """\
[model]
path = "m.onnx"
dims = { N = 1 }

[data]
calibration = "c.npz"
evaluation = "c.npz"
metric = "top1"

[data.preprocess]
mean = [0.5]
std = 0.25
scale = 0.0039

[gate]
max_drop_points = 1.0
confidence = 0.95

[build]
device = "tablet"
seed = 3
runtime = "auto"
"""
_RECIPE = """\
name = "mine"

[[step]]
name = "clean"

[[step]]
name = "quantize-static"
bits = 8
per_channel = true
"""


def base_models() -> dict[str, onnx.ModelProto]:
    """Build small graphs of several kinds."""
    models = {}
    for name, text in _GRAPHS.items():
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
        read = {i for node in proto.graph.node for i in node.input}
        stored = [numpy_helper.from_array(v, k) for k, v in _STORED.items() if k in read]
        proto.graph.initializer.extend(stored)
        models[name] = proto
    return models


def write_bases(folder: Path) -> None:
    """Write the base files of the variants, once."""
    from edgekit.bundle.bundle_file import write_bundle
    from edgekit.compression.recipe_parser import parse_step
    from edgekit.pipeline.apply import apply
    from edgekit.progress import ignore_progress
    from tests.builders.servers import make_bundle

    folder.mkdir(parents=True)
    for name, proto in base_models().items():
        onnx.save(proto, folder / f"{name}.onnx")
    for name in ("dense", "conv"):
        apply(
            parse_step("to-tflite"),
            folder / f"{name}.onnx",
            folder / f"{name}.tflite",
            data=None,
            folder=folder,
            tick=ignore_progress,
        )
    random = np.random.default_rng(0)
    x = random.standard_normal((12, 8)).astype(np.float32)
    np.savez(folder / "c.npz", x=x, y=np.arange(12) % 4, group=np.arange(12))
    np.savez_compressed(folder / "z.npz", x=x)
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"a": 1}], dtype=object))
    (folder / "o.npz").write_bytes(buffer.getvalue())
    bundle = make_bundle(folder / "bundle", width=32)
    members = {f.name: (folder / "bundle" / f.name).read_bytes() for f in bundle.manifest.files}
    members["manifest.json"] = bundle.manifest_bytes
    write_bundle(folder / "m.edgekit", members)


def write_variant(kind: str, seed: int, bases: Path, scratch: Path) -> Path:
    """Write one damaged input and return the path to give to edgekit."""
    rng = Random(f"{kind} {seed}")
    if kind == "toml":
        return _write_settings(rng, bases, scratch)
    if kind == "manifest":
        return _write_manifest(rng, bases, scratch)
    path = scratch / ENDINGS[kind]
    sources = sorted(bases.glob(f"*{path.suffix}"))
    source = rng.choice(sources)
    if kind == "onnx":
        data = mutate_onnx(onnx.load(source), rng)
    else:
        mutate = mutate_tflite if kind == "tflite" else mutate_zip
        data = mutate(source.read_bytes(), rng)
    path.write_bytes(data)
    return path


def _write_settings(rng: Random, bases: Path, scratch: Path) -> Path:
    from edgekit.config.profile import read_profile_text

    name, text = rng.choice(
        (
            ("edgekit.toml", _PROJECT),
            ("recipe.toml", _RECIPE),
            ("d.toml", read_profile_text("tablet")),
        )
    )
    for file in ("m.onnx", "c.npz"):
        source = bases / file.replace("m.onnx", "dense.onnx")
        (scratch / file).write_bytes(source.read_bytes())
    path = scratch / name
    path.write_bytes(mutate_text(text, rng))
    return path


def _write_manifest(rng: Random, bases: Path, scratch: Path) -> Path:
    folder = scratch / "bundle"
    folder.mkdir()
    for file in (bases / "bundle").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    text = json.dumps(mutate_json(manifest, rng)).encode()
    (folder / "manifest.json").write_bytes(mutate_bytes(text, rng) if rng.random() < 0.3 else text)
    return folder


def run_case(kind: str, seed: int, bases: Path, scratch: Path) -> str:
    """Run one input and return ``taken`` or the first line of the refusal.

    Raises:
        Exception: Any other than an expected failure; it is a fault.
    """
    rng = Random(f"{kind} {seed} use")
    runs: dict[str, Callable[[Path, Random], None]] = {
        "onnx": _use_model,
        "tflite": _use_model,
        "npz": _use_data,
        "toml": _use_settings,
        "manifest": _use_bundle,
        "bundle": _use_bundle,
    }
    try:
        if kind == "answers":
            from benchmarks.fuzz.answers import use_answer

            use_answer(seed)
        else:
            runs[kind](write_variant(kind, seed, bases, scratch), rng)
    except EdgekitError as error:
        if error.exit_code == ExitCode.OUR_FAULT:
            raise
        if "\n" in error.message:
            raise AssertionError(f"more than one line: {error.message!r}") from error
        return error.message
    return "taken"


def _use_model(path: Path, rng: Random) -> None:
    from edgekit.cli.render.model import format_inspection
    from edgekit.compression.recipe_parser import parse_step
    from edgekit.inspection.summary import inspect
    from edgekit.pipeline.apply import apply
    from edgekit.progress import ignore_progress

    folder = path.parent
    if rng.random() < 0.6:
        device = rng.choice((None, "tablet"))
        format_inspection(inspect(path, device=device, folder=folder, structure=rng.random() < 0.3))
        return
    steps = ("clean", "quantize-dynamic", "to-tflite", "quantize-weights:bits=4", "low-rank")
    name = "to-onnx" if path.suffix == ".tflite" else rng.choice(steps)
    out = folder / ("out.tflite" if name == "to-tflite" else "out.onnx")
    apply(parse_step(name), path, out, data=None, folder=folder, tick=ignore_progress)


def _use_data(path: Path, rng: Random) -> None:
    from edgekit.data.dataset import open_dataset
    from edgekit.model import Signature, TensorSpec

    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 8)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 4)),),
    )
    open_dataset(
        str(path),
        signature,
        folder=path.parent,
        cache=path.parent,
        settings=None,
        targets=rng.choice(("required", "optional", "none")),
    )


def _use_settings(path: Path, rng: Random) -> None:
    from edgekit.compression.recipe_parser import read_recipe
    from edgekit.config.profile import load_profile
    from edgekit.config.project import load_project
    from edgekit.pipeline.model_settings import find_model, read_feeding

    if path.name == "recipe.toml":
        read_recipe(path)
    elif path.name == "d.toml":
        load_profile(str(path))
    else:
        project = load_project(path.parent)
        if rng.random() < 0.3:
            model = find_model(path.parent, None, project)
            read_feeding(path.parent, project, model)


def _use_bundle(path: Path, rng: Random) -> None:
    from edgekit.bundle.bundle_file import open_bundle

    del rng
    opened = open_bundle(path)
    opened.check()
    for file in opened.manifest.files:
        opened.read(file.name)
        opened.encode_for_transfer(file.name)
