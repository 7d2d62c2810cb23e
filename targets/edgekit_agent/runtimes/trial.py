"""Trial of a runtime: load a tiny model with it, in a process that may crash."""

from __future__ import annotations

import base64
import importlib
import importlib.metadata
import json
import os
import sys
from typing import Any, Optional

from edgekit_agent.runtimes import PACKAGES
from edgekit_agent.wire import guard_stdout

# x -> Identity -> y, float32 [1]; IR version 7, opset 13.
_IDENTITY_ONNX = bytes.fromhex(
    "08073a390a120a017812017922084964656e746974793a001201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
# x -> ADD(x, x) -> y, float32 [1]; schema version 3.
_ADD_TFLITE = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAYAAAA4AAAAAMAAAABAAAABAAAACj///8BAAAAEAAAAAwA"
    "FAAQAAwACAAEAAwAAAAQAAAAUAAAAFQAAABYAAAAAQAAABQAAAAAAA4AFAAAABAADAALAAQADgAAABAAAAAAAAAL"
    "DAAAABAAAACA////AQAAAAEAAAACAAAAAAAAAAAAAAABAAAAAQAAAAEAAAAAAAAAAgAAADAAAAAEAAAA5P///wgA"
    "AAAMAAAAAQAAAHkAAAABAAAAAQAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAEAAAB4AAAAAQAAAAEAAAABAAAA"
    "CAAAAAQABAAEAAAA"
)


def run_trial(module: str, site: Optional[str]) -> int:
    """Print one JSON object: ``found``, ``version`` and, in ``detail``, why the runtime fails.

    Args:
        module: the package's import name, one of ``PACKAGES``.
        site: a folder to import from first.
    """
    answer = guard_stdout()
    if site is not None:
        sys.path.insert(0, site)
    package = next(p for p in PACKAGES if p.module == module)
    is_installed, detail = True, ""
    try:
        _construct(module)
    except ModuleNotFoundError as error:
        is_installed, detail = error.name != module, str(error)
    except Exception as error:  # noqa: BLE001 - the error is the answer
        lines = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {lines[0] if lines else ''}"
    version = _find_version(package.distribution, module)
    line = json.dumps({"found": is_installed, "version": version, "detail": detail})
    os.write(answer, line.encode())
    # Skip the interpreter's shutdown: some runtimes crash or hang in it.
    os._exit(0)


def _construct(module: str) -> None:
    if module == "onnxruntime":
        runtime: Any = importlib.import_module("onnxruntime")
        runtime.InferenceSession(_IDENTITY_ONNX, providers=["CPUExecutionProvider"])
    else:
        runtime = importlib.import_module(f"{module}.interpreter")
        runtime.Interpreter(model_content=_ADD_TFLITE, num_threads=1).allocate_tensors()


def _find_version(distribution: str, module: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        # A build under another name, such as onnxruntime-gpu.
        return str(getattr(sys.modules.get(module), "__version__", ""))
