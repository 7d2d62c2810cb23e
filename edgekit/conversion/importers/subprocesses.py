"""Conversion in a child process, which contains its output, memory use and crashes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from edgekit.conversion.importers.registry import Source
from edgekit.errors import EdgekitError, UserError
from edgekit.progress import Count

# Files in the folder of the child: its job, its answer, and the model.
JOB_FILE, RESULT_FILE, MODEL_FILE = "job.json", "said.json", "model.onnx"
# Stages of a conversion: the tool is imported, the graph written, its outputs compared.
STAGES = LOADED, EXPORTED, COMPARED = "loaded", "exported", "compared"
_OUTPUT = "output.txt"
_POLL_S = 0.2

_CHILD_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",  # saves seconds of a search for GPUs, which are not needed
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True, kw_only=True)
class ConversionResult:
    """Result of a conversion: the file, the tool, the packages used, and notes."""

    path: Path
    tool: str
    packages: tuple[str, ...]
    notes: tuple[str, ...]


def convert_in_process(source: Source, scratch: Path, tick: Count) -> ConversionResult:
    """Convert a source in a child process; the model file is written to ``scratch``.

    Args:
        source: The model to convert.
        scratch: Folder for the job and its results.
        tick: Called with the number of completed stages.

    Raises:
        UserError: The source cannot be converted (the message says why), or a signal ended the
            process.
        EdgekitError: The process ended without a result.
    """
    job = asdict(source) | {"path": str(source.path.absolute())}
    (scratch / JOB_FILE).write_text(json.dumps(job), encoding="utf-8")
    # -P: the folder that happens to be current may hold an onnx.py.
    with (
        (scratch / _OUTPUT).open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "edgekit.conversion.importers.worker", str(scratch)],
            env=build_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _await(process, scratch, tick)
        except BaseException:
            process.kill()
            raise
    if process.returncode or not (scratch / RESULT_FILE).exists():
        raise _build_exit_error(source, process.returncode, (scratch / _OUTPUT).read_bytes())
    result = json.loads((scratch / RESULT_FILE).read_bytes())
    if "error" in result:
        raise UserError(result["error"], hint=result["hint"])
    return ConversionResult(
        path=scratch / MODEL_FILE,
        tool=result["tool"],
        packages=tuple(result["packages"]),
        notes=tuple(result["notes"]),
    )


def _await(process: subprocess.Popen[bytes], scratch: Path, tick: Count) -> None:
    """Wait for the end of a conversion; each stage that it finishes leaves an empty file."""
    while process.poll() is None:
        tick(sum((scratch / stage).exists() for stage in STAGES), len(STAGES))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)


def build_environment() -> dict[str, str]:
    """Return the environment of the child process: this process's module path, and no GPU."""
    folders = [str(Path(folder).absolute()) for folder in sys.path]
    return {**os.environ, **_CHILD_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(folders)}


def _build_exit_error(source: Source, code: int, output: bytes) -> EdgekitError:
    lines = output.decode(errors="replace").strip().splitlines() or ["no error message"]
    if code < 0:
        return UserError(
            f"{source.display_name}: the conversion was killed by signal {-code}: {lines[-1]}",
            hint="signal 9 usually means that the machine ran out of memory",
        )
    return EdgekitError(
        f"{source.display_name}: the conversion failed with exit status {code}: {lines[-1]}"
    )
