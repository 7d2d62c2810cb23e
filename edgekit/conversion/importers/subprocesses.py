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
JOB, SAID, MADE = "job.json", "said.json", "model.onnx"
# Stages of a conversion: the tool is imported, the graph written, its outputs compared.
STAGES = LOADED, EXPORTED, COMPARED = "loaded", "exported", "compared"
_OUTPUT = "output.txt"
_LOOKED_EVERY_S = 0.2

_QUIET = {
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
    (scratch / JOB).write_text(json.dumps(job), encoding="utf-8")
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
    if process.returncode or not (scratch / SAID).exists():
        raise _build_exit_error(source, process.returncode, (scratch / _OUTPUT).read_bytes())
    said = json.loads((scratch / SAID).read_bytes())
    if "error" in said:
        raise UserError(said["error"], hint=said["hint"])
    return ConversionResult(
        path=scratch / MADE,
        tool=said["tool"],
        packages=tuple(said["packages"]),
        notes=tuple(said["notes"]),
    )


def _await(process: subprocess.Popen[bytes], scratch: Path, tick: Count) -> None:
    """Wait for the end of a conversion; each stage that it finishes leaves an empty file."""
    while process.poll() is None:
        tick(sum((scratch / stage).exists() for stage in STAGES), len(STAGES))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOKED_EVERY_S)


def build_environment() -> dict[str, str]:
    """Return the environment of the child process: this process's module path, and no GPU."""
    places = [str(Path(place).absolute()) for place in sys.path]
    return {**os.environ, **_QUIET, "PYTHONPATH": os.pathsep.join(places)}


def _build_exit_error(source: Source, code: int, output: bytes) -> EdgekitError:
    lines = output.decode(errors="replace").strip().splitlines() or ["no error message"]
    if code < 0:
        return UserError(
            f"{source.given}: the conversion was killed by signal {-code}: {lines[-1]}",
            hint="signal 9 usually means that the machine ran out of memory",
        )
    return EdgekitError(
        f"{source.given}: the conversion failed with exit status {code}: {lines[-1]}"
    )
