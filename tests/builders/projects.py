"""Real projects and the edgekit command, in this process and in a separate one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import onnx.parser

from edgekit.cli import main

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
PROFILE = "tablet-x86"
HANGS_S = 600  # a command that takes longer never ends; the machine may be busy

_MODEL = """
<ir_version: 10, opset_import: ["" : 17]>
tiny (float[N, 4] x) => (float[N, 3] y) <float[4, 3] w = {{{weights}}}> {{ y = MatMul(x, w) }}
"""


@dataclass(frozen=True)
class Done:
    """Result of a command."""

    code: int
    out: str
    err: str
    cpu_s: float


def measure_cpu_s() -> float:
    """Return the processor time of this process and of its children that ended, in seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def edgekit(*arguments: object) -> Done:
    """Run the command in this process, by the function that the installed script calls."""
    out, err = io.StringIO(), io.StringIO()
    started = measure_cpu_s()
    code: object = 0
    with (
        patch.object(sys, "argv", ["edgekit", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    return Done(int(str(code)), out.getvalue(), err.getvalue(), measure_cpu_s() - started)


def spawn(*arguments: object, **environment: object) -> Done:
    """Run the command as a user does, in a separate process."""
    started = measure_cpu_s()
    done = subprocess.run(
        command(*arguments),
        env=os.environ | {k: str(v) for k, v in environment.items()},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr, measure_cpu_s() - started)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgekit", *map(str, arguments)]


def interrupt(*arguments: object, stage: str) -> Done:
    """Start the command, and press Ctrl-C when it reports a stage."""
    started = measure_cpu_s()
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = ""
        for line in process.stderr:
            said += line
            if stage in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=HANGS_S)
    return Done(process.returncode, out, said + err, measure_cpu_s() - started)


def listing(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its digest; folders have none."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def assert_untouched(*folders: Path) -> Iterator[None]:
    """Assert that nothing in the folders changes in the block."""
    before = [listing(folder) for folder in folders]
    yield
    for folder, was in zip(folders, before, strict=True):
        changed = sorted(name for name, _ in was.items() ^ listing(folder).items())
        assert not changed, f"changed in {folder}: {changed}"


def assert_refused(*arguments: object, says: str) -> Done:
    """Assert that the command ends with 2, one line, at most a hint, and nothing on stdout."""
    done = edgekit(*arguments)
    assert done.code == 2, done
    assert done.out == "", done
    assert "Traceback" not in done.err, done.err
    said = [line for line in done.err.splitlines() if line.startswith("edgekit: ")]
    assert len(said) == 1, done.err
    assert says in done.err, done.err
    return done


def inspect_all(models: list[Path]) -> list[Done]:
    """Inspect each file, and return the results."""
    return [edgekit("inspect", model, "--device", PROFILE) for model in models]


def copy_digits(folder: Path) -> Path:
    """Copy the example project, to be changed; built for one runtime."""
    shutil.copytree(DIGITS, folder, ignore=shutil.ignore_patterns("build", "__pycache__"))
    with (folder / "edgekit.toml").open("a", encoding="utf-8") as file:
        file.write('runtime = "onnxruntime"\n')
    return folder


def write_tiny(folder: Path, *, samples: int = 40) -> Path:
    """Write a project of one matrix, with data that it predicts correctly."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(4, 3)).astype(np.float32)
    text = _MODEL.format(weights=", ".join(f"{float(w):.6f}" for w in weights.ravel()))
    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    x = rng.normal(size=(samples, 4)).astype(np.float32)
    np.savez(folder / "calib.npz", x=rng.normal(size=(samples, 4)).astype(np.float32))
    np.savez(folder / "eval.npz", x=x, label=(x @ weights).argmax(1))
    (folder / "edgekit.toml").write_text(
        '[model]\npath = "model.onnx"\n'
        '[data]\ncalibration = "calib.npz"\nevaluation = "eval.npz"\n'
        f'[build]\ndevice = "{PROFILE}"\nruntime = "onnxruntime"\n',
        encoding="utf-8",
    )
    return folder
