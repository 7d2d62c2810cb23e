"""Run of passes on a model in this process only, with its time and memory.

    python -m benchmarks.precision.ours PROJECT TARGET PASS[:key=value,...] ...

PROJECT is a folder with an edgekit.toml. Prints one JSON object: seconds, and the process's peak
resident memory in bytes.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.compression.pass_specs import PASSES, Work
from edgekit.compression.step_runner import run_step
from edgekit.config.project import load_project
from edgekit.data.dataset import open_dataset
from edgekit.onnx_graph.io import read_onnx
from edgekit.recipe import Step
from edgekit_agent.measure.memory import peak_rss_bytes


def parse(text: str) -> Step:
    """Parse a step of the form ``PASS:key=value,key=value``."""
    name, _, settings = text.partition(":")
    pairs = (pair.split("=") for pair in settings.split(",") if pair)
    spec = PASSES[name]
    values = {key: _value(value) for key, value in pairs}
    return Step(name=name, version=spec.version, settings=spec.settings(**values))


def _value(text: str) -> Any:  # noqa: ANN401 - whatever a setting takes
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main() -> None:
    """Run the passes and print time and memory."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    steps = [parse(text) for text in sys.argv[3:]]
    project = load_project(folder)
    work = target.parent / f"{target.stem}-work"
    shutil.rmtree(work, ignore_errors=True)
    started = time.perf_counter()
    model = read_onnx(Path(project.model.path))
    data = open_dataset(
        project.data.calibration,
        model.signature,
        folder=folder,
        cache=target.parent / "cache",
        settings=project.data.preprocess,
        targets="none",
    )
    for step in steps:
        scratch = work / step.name
        scratch.mkdir(parents=True)
        made = Work(scratch=scratch, calibration=data.samples, progress=lambda *_: None)
        model = run_step(step, model, made)
    shutil.copy(model.path, target)
    seconds = time.perf_counter() - started
    shutil.rmtree(work)
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
