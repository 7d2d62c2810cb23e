"""Convert many sources in one process, as loading their libraries takes seconds each time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgekit.conversion.importers.subprocesses import build_environment
from edgekit.onnx_graph.io import open_session, read_onnx
from tests.builders.projects import ROOT

_SCRIPT = """
import dataclasses, importlib, json, sys
from pathlib import Path
from edgekit.conversion.importers.worker import main
from edgekit.conversion.importers.source import detect_source

folder, maker, sources = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
importlib.import_module(maker).make(folder)
for name, given in sources.items():
    trusted = given.startswith("trusted ")
    path = Path(given.removeprefix("trusted "))
    source = detect_source(path, folder=folder, trusted=trusted)
    job = folder / "jobs" / name
    job.mkdir(parents=True)
    facts = dataclasses.asdict(source) | {"path": str(source.path.absolute())}
    (job / "job.json").write_text(json.dumps(facts))
    main(job)
"""


@dataclass(frozen=True)
class Result:
    """Result of the conversion of one source."""

    said: dict
    path: Path

    @property
    def signature(self):
        return read_onnx(self.path).signature

    @property
    def inputs(self):
        return [str(spec) for spec in self.signature.inputs]

    @property
    def outputs(self):
        return [str(spec) for spec in self.signature.outputs]

    @property
    def ops(self):
        return {node.op_type for node in onnx.load(self.path).graph.node}

    def run(self, **inputs):
        return open_session(self.path).run(None, inputs)


def convert_all(folder: Path, maker: str, sources: dict[str, str]) -> dict[str, Result]:
    """Write the files of a module by ``make(folder)``, then convert each source."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder), maker, json.dumps(sources)],
        cwd=folder,
        env=build_environment()
        | {"PYTHONPATH": f"{ROOT / 'tests' / 'builders' / 'sources'}:" + _paths()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: Result(json.loads((job / "said.json").read_bytes()), job / "model.onnx")
        for name in sources
        for job in [folder / "jobs" / name]
    }


def _paths() -> str:
    return build_environment()["PYTHONPATH"]


def close(expected, got, tolerance=1e-4):
    """Return whether two arrays differ by no more than a part of the largest value."""
    expected, got = np.asarray(expected), np.asarray(got)
    assert expected.shape == got.shape
    assert np.abs(expected - got).max() <= tolerance * np.abs(expected).max()
