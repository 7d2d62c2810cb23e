"""Calls of the functions of targets/web/edgekit in node, with arrays of numpy."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "targets" / "web" / "edgekit"
_OLDEST_NODE = 20
_RUNTIME = "onnxruntime-web@1.30.0"


class NodeError(Exception):
    """An error that a function has thrown."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['name']}: {error['message']}\n{error.get('stack', '')}")
        self.message: str = error["message"]
        self.kind: str | None = error.get("kind")
        self.hint: str | None = error.get("hint")


class Numbers:
    """An array that the function takes as numbers alone, without its shape."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values


@dataclass(frozen=True, kw_only=True)
class SessionRun:
    """Results of a session: the check of golden samples, and predictions or errors."""

    health: Any
    predictions: list[Any]
    input_kind: str


@cache
def find_node() -> str:
    """Return the path of node, or skip the test."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed, which runs the code of web pages here")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").split(".")[0]) < _OLDEST_NODE:
        pytest.skip(f"node {version.stdout.strip()} is older than {_OLDEST_NODE}")
    return found


@cache
def find_web_runtime() -> Path:
    """Return the module of onnxruntime-web for node, installed once by npm, or skip the test."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, which fetches onnxruntime-web")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "edgekit-tests" / _RUNTIME
    module = folder / "node_modules" / "onnxruntime-web" / "dist" / "ort.node.min.mjs"
    if not module.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", _RUNTIME]
        done = subprocess.run(
            [*command, "--prefix", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            pytest.skip(f"npm cannot fetch {_RUNTIME}: {done.stderr.strip()[-200:]}")
    return module


def call_all(module: str, function: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
    """Call a function several times; return its results, or errors, in the same order."""
    document = {"module": module, "function": function, "calls": _encode(calls)}
    return [_get_result(each) for each in _run("calls.mjs", document)]


def call(module: str, function: str, *arguments: Any) -> Any:
    """Call a function once; raise its error."""
    [result] = call_all(module, function, [arguments])
    if isinstance(result, NodeError):
        raise result
    return result


def run_session(
    settings: Any,
    model: bytes,
    samples: Sequence[Any] = (),
    golden: Any = None,
) -> SessionRun:
    """Load a session in node with onnxruntime-web; raise the error of loading.

    Args:
        settings: Values of settings.json, or its text.
        model: Bytes of the model.
        samples: Samples to predict.
        golden: Values of golden.json, or its text.
    """
    document = {
        "runtime": str(find_web_runtime()),
        "settings": _encode(settings),
        "model": base64.b64encode(model).decode(),
        "samples": _encode(samples),
        "golden": _encode(golden),
    }
    found = _run("session_calls.mjs", document)
    loaded = _get_result(found["loaded"])
    if isinstance(loaded, NodeError):
        raise loaded
    return SessionRun(
        health=_get_result(found["health"]) if found["health"] else None,
        predictions=[_get_result(each) for each in found["predictions"]],
        input_kind=loaded["inputKind"],
    )


def store(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array in the JSON form of settings and golden samples."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": data}


def _run(script: str, document: Any) -> Any:
    done = subprocess.run(
        [find_node(), str(HERE / script)],
        input=json.dumps(document).encode(),
        capture_output=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return json.loads(done.stdout)


def _get_result(value: dict[str, Any]) -> Any:
    return NodeError(value["error"]) if "error" in value else _decode(value["result"])


def _encode(value: Any) -> Any:
    if isinstance(value, Numbers):
        return {"numbers": store(value.values)}
    if isinstance(value, np.ndarray):
        return store(value)
    if isinstance(value, dict):
        return {key: _encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each) for each in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"dtype", "shape", "data"}:
        numbers = np.frombuffer(base64.b64decode(value["data"]), value["dtype"])
        return numbers.reshape(value["shape"])
    if set(value) == {"map"}:
        return dict(_decode(value["map"]))
    return {key: _decode(each) for key, each in value.items()}
