"""Folders of models with a manifest, as a build writes them, made without one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import onnx.parser

_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
}  # fmt: skip


def write_model_folder(folder: Path, text: str, /, *, opset: int = 17, **fields: object) -> Path:
    """Write a model and a manifest with the given fields; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    header = f'<ir_version: 8, opset_import: ["" : {opset}]> '
    made = onnx.parser.parse_model(header + text)
    onnx.save(made, folder / "model.onnx")
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    manifest = {
        "schema_version": 2,
        "name": "tablet-x86",
        "model": "model.onnx",
        "files": [{"name": "model.onnx", "digest": digest, "bytes": 1}],
        "inputs": [_describe(value) for value in made.graph.input],
        "outputs": [_describe(value) for value in made.graph.output],
        "metric": "",
        "output": None,
        "runtime": {"name": "onnxruntime", "version": "1", "threads": 1},
        "golden_samples": "golden.npz",
        **fields,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _describe(value: onnx.ValueInfoProto) -> dict[str, object]:
    kind = value.type.tensor_type
    shape = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim
    ]
    return {"name": value.name, "dtype": _TYPES[kind.elem_type], "shape": shape}
