"""Calls of the functions of targets/web/edgekit in node, with arrays of numpy."""

from __future__ import annotations

import atexit
import base64
import dataclasses
import json
import os
import re
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


class Named:
    """Values by name that the function takes as a Map."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values


@dataclass(frozen=True, kw_only=True)
class SessionRun:
    """Results of a session: the check of golden samples, and answers or errors.

    Attributes:
        health: Result of the check.
        predictions: Answers to samples.
        answers: Answers to the blocks of a stream.
        input_kind: What a sample is.
    """

    health: Any
    predictions: list[Any]
    answers: list[Any]
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
    return [_get_result(each) for each in _ask(document)]


def call(module: str, function: str, *arguments: Any) -> Any:
    """Call a function once; raise its error."""
    [result] = call_all(module, function, [arguments])
    if isinstance(result, NodeError):
        raise result
    return result


def run_tokenizer(
    tokenizer: str,
    texts: Sequence[tuple[str, str | None, int | None]] = (),
    numbers: Sequence[int] = (),
) -> tuple[list[Any], list[str]]:
    """Return the tokens of texts and the texts of tokens; raise the error of the tokenizer."""
    document = {"tokenizer": tokenizer, "texts": list(texts), "numbers": list(numbers)}
    found = _get_result(_ask(document))
    if isinstance(found, NodeError):
        raise found
    return found["tokens"], found["decoded"]


def run_session(
    settings: Any,
    model: bytes,
    samples: Sequence[Any] = (),
    golden: Any = None,
    blocks: Sequence[Any] = (),
    tokenizer: str | None = None,
) -> SessionRun:
    """Load a session in node with onnxruntime-web; raise the error of loading.

    Args:
        settings: Values of settings.json, or its text.
        model: Bytes of the model.
        samples: Samples to predict.
        golden: Values of golden.json, or its text.
        blocks: Blocks of a stream to predict.
        tokenizer: Text of tokenizer.json.
    """
    document = {
        "runtime": str(find_web_runtime()),
        "settings": _encode(settings),
        "model": base64.b64encode(model).decode(),
        "samples": _encode(samples),
        "golden": _encode(golden),
        "blocks": _encode(blocks),
        "vocabulary": tokenizer,
    }
    found = _ask(document)
    loaded = _get_result(found["loaded"])
    if isinstance(loaded, NodeError):
        raise loaded
    return SessionRun(
        health=_get_result(found["health"]) if found["health"] else None,
        predictions=[_get_result(each) for each in found["predictions"]],
        answers=[_get_result(each) for each in found["answers"]],
        input_kind=loaded["inputKind"],
    )


def rename(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass under their names in the page, such as ``scoreMin``."""
    values = dataclasses.asdict(record)
    return {re.sub(r"_([a-z])", lambda m: m[1].upper(), name): values[name] for name in values}


def store(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array in the JSON form of settings and golden samples."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": data}


def _ask(document: Any) -> Any:
    """Send a document to node, and return its answer."""
    driver = _start_driver(find_node())
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(json.dumps(document).encode() + b"\n")
    driver.stdin.flush()
    line = driver.stdout.readline()
    if not line:
        _start_driver.cache_clear()
        raise RuntimeError(f"node has ended: {driver.wait()}")
    return json.loads(line)


@cache
def _start_driver(node: str) -> subprocess.Popen[bytes]:
    """Start node once; it ends with its input."""
    driver = subprocess.Popen(
        [node, str(HERE / "driver.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(driver.kill)
    return driver


def _get_result(value: dict[str, Any]) -> Any:
    return NodeError(value["error"]) if "error" in value else _decode(value["result"])


def _encode(value: Any) -> Any:
    if isinstance(value, Numbers):
        return {"numbers": store(value.values)}
    if isinstance(value, Named):
        return {"map": [[name, _encode(each)] for name, each in value.values.items()]}
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
