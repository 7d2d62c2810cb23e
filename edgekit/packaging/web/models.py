"""Files of a model in a web app: settings, model file, and golden samples."""

from __future__ import annotations

import base64
import gzip
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgekit.bundle.bundle_file import Bundle
from edgekit.errors import UserError
from edgekit.packaging.bundle_facts import read_settings
from edgekit.packaging.web.tokenizers import find_unknown_part
from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.health import choose_positions, read_golden_samples, run_samples
from edgekit_agent.model_settings import ModelSettings
from edgekit_agent.runtimes.ort import OrtModel

SETTINGS, GOLDEN = "settings.json", "golden.json"
# A packed file must be this much smaller than the gzipped one: the page expands it on each start.
_WORTH = 0.8
# 8-bit products do not overflow on processors without VNNI, as they do not in WebAssembly.
_EXACT_PRODUCTS = "session.x64quantprecision"


def make_model_files(bundle: Bundle) -> tuple[dict[str, bytes], str]:
    """Return the files of a model in a web app by name, and the name of the model file.

    Raises:
        UserError: Browsers cannot run the model.
    """
    manifest = bundle.manifest
    if manifest.format != "onnx":
        raise UserError(
            f"{bundle.path}: browsers run ONNX models, and this bundle holds {manifest.model}",
            hint="build it again with --runtime onnxruntime",
        )
    settings = read_settings(bundle)
    tokenizer = _read_tokenizer(bundle, settings)
    data = bytes(bundle.read(manifest.model))
    name, stored = _choose_form(bundle, data)
    golden = _make_golden(bundle, settings, data)
    files = {
        SETTINGS: json.dumps(encode(settings), sort_keys=True).encode() + b"\n",
        name: stored,
        GOLDEN: json.dumps(golden, sort_keys=True).encode() + b"\n",
        **tokenizer,
    }
    return files, name


def _read_tokenizer(bundle: Bundle, settings: ModelSettings) -> dict[str, bytes]:
    """Return the file of the tokenizer by its name, if the model takes texts.

    Raises:
        UserError: Pages cannot read it.
    """
    if settings.text is None:
        return {}
    name = settings.text.tokenizer
    data = bytes(bundle.read(name))
    try:
        unknown = find_unknown_part(data)
    except ValueError as error:
        raise UserError(f"{bundle.path}: {name}: {error}", hint="build it again") from error
    if unknown is not None:
        raise UserError(
            f"{bundle.path}: its tokenizer has {unknown}, which pages do not know",
            hint="package it with --target linux",
        )
    return {name: data}


def _choose_form(bundle: Bundle, data: bytes) -> tuple[str, bytes]:
    """Return name and bytes of the model file: packed if that makes the download much smaller."""
    name = bundle.manifest.model
    sent = bundle.encode_for_transfer(name)
    if sent.encoding == "packed" and len(sent.data) < _WORTH * len(gzip.compress(data, 6)):
        return f"{name}.packed", sent.data
    return name, data


def _make_golden(bundle: Bundle, settings: ModelSettings, data: bytes) -> dict[str, Any]:
    """Return the golden samples, with outputs in full precision as onnxruntime computes them here.

    Those of the bundle are rounded to 16 bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        samples, model = Path(folder) / "golden.npz", Path(folder) / settings.model
        samples.write_bytes(bundle.read(settings.golden_samples))
        model.write_bytes(data)
        try:
            inputs, axes, expected, picked = read_golden_samples(str(samples))
            outputs = run_samples(_load(model), inputs, axes, lambda *_: None)
        except (AgentError, KeyError) as error:
            raise UserError(
                f"{bundle.path}: the golden samples cannot be run: {error}", hint="build it again"
            ) from error
    stacked = {name: axis for name, axis in axes.items() if axis is not None}
    return {
        "inputs": {name: _encode_array(inputs[name]) for name in stacked},
        "axes": {name: axis for name, axis in stacked.items() if axis},
        "constants": {n: _encode_array(v) for n, v in inputs.items() if n not in stacked},
        "outputs": {name: _encode_array(outputs[name]) for name in expected},
        "picked": {n: _encode_array(_pick(outputs[n], v.shape[1])) for n, v in picked.items()},
    }


def _pick(output: NDArray[Any], count: int) -> NDArray[Any]:
    flat = output.reshape(len(output), -1)
    return flat[:, choose_positions(flat.shape[1], count)]


def _load(path: Path) -> OrtModel:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(_EXACT_PRODUCTS, "1")
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise AgentError("model_failed", str(error)) from error
    return OrtModel(session)


def _encode_array(values: NDArray[Any]) -> Mapping[str, Any]:
    dtype = values.dtype.newbyteorder("<")
    data = np.ascontiguousarray(values, dtype).tobytes()
    return {
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "data": base64.b64encode(data).decode(),
    }
