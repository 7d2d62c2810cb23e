"""Task scores of real models quantized with and without refinements.

    python -m benchmarks.tasks FOLDER ... [--only NAME ...] [--out DIR] [--write FILE]

FOLDER holds MANIFEST.toml (one ``[[entry]]`` per model), a folder per entry and eval.py, which
scores any model file on an entry (``eval.py ENTRY MODEL --json``) and writes the calibration split
as the model's inputs (``--dump``; if it cannot, the split is read as in ``edgekit build``). Every
model is cleaned and quantized to int8 by ``edgekit apply``: with the defaults, with min-max ranges
and no other refinement, and after weights of 3 bits. Models with recurrent layers also go through
``quantize-dynamic``. Latencies are CPU times of one thread, measured in turn; the ratio is that of
the medians. A gain over plain is in the units of the metric, positive if the defaults are better;
its interval is computed on the samples of both (`benchmarks.task_intervals`).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.task_intervals import (
    LOWER_IS_BETTER,
    Evaluation,
    Gain,
    mean_gain,
    paired_gain,
)
from benchmarks.task_parts import evaluate
from benchmarks.zoo import apply_command, write_project
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import load_structure

PLAIN = ("ranges=minmax", "equalize=false", "bias_correction=false", "float_layers=none")
RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "int8, plain": (("quantize-static", *PLAIN),),
    "int8": (("quantize-static",),),
    "3 bits, then int8, plain": (("quantize-weights", "bits=3"), ("quantize-static", *PLAIN)),
    "3 bits, then int8": (("quantize-weights", "bits=3"), ("quantize-static",)),
}
DYNAMIC: dict[str, tuple[tuple[str, ...], ...]] = {
    "int8, dynamic": (("quantize-dynamic",),),
    "3 bits, then int8, dynamic": (("quantize-weights", "bits=3"), ("quantize-dynamic",)),
}
_RECURRENT = {"LSTM", "GRU", "RNN"}
Gains = dict[str, list[Gain]]
_ROUNDS, _MOST_SECONDS = 40, 20.0
_HEAD = (
    "model",
    "recipe",
    "score",
    "change",
    "gain over plain, 95 %",
    "file / fp32",
    "p50 / fp32",
    "seconds",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Model with its task: the folder of all entries, and its section of the manifest."""

    home: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name in the manifest."""
        return str(self.facts["name"])

    @property
    def folder(self) -> Path:
        """Return the folder of its files."""
        return self.home / self.name

    @property
    def model(self) -> Path:
        """Return the path of the float model."""
        return self.folder / str(self.facts["model"])


def entries(home: Path, only: Sequence[str] | None) -> Iterator[Entry]:
    """Yield the ONNX models of a folder."""
    manifest = tomllib.loads((home / "MANIFEST.toml").read_text(encoding="utf-8"))
    for facts in manifest["entry"]:
        entry = Entry(home=home, facts=facts)
        if entry.model.suffix == ".onnx" and (only is None or entry.name in only):
            yield entry


def prepare(entry: Entry, folder: Path) -> list[str]:
    """Write the calibration split; return the data arguments for ``edgekit apply``."""
    data = folder / "calib.npz"
    command = [sys.executable, str(entry.home / "eval.py"), str(entry.folder)]
    if data.exists():
        return ["-C", str(folder), "--data", str(data)]
    command += ["--split", "calib", "--dump", str(data)]
    if "kind" in entry.facts:
        write_inputs(entry, folder)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return ["-C", str(folder), "--data", str(data)]
    write_project(entry.home, entry.facts, folder)
    return ["-C", str(folder)]


def write_inputs(entry: Entry, folder: Path) -> None:
    """Write an edgekit.toml with constant inputs and states, if the entry has any."""
    constants, states = entry.facts.get("const", {}), entry.facts.get("state", {})
    if not constants and not states:
        return
    lines = ["[model]", f'path = "{entry.model}"']
    for name, value in constants.items():
        lines += [f"[model.inputs.{name}]", f"constant = {value}"]
    fed_back = [each["name"] for each in entry.facts["outputs"][1:]]
    for (name, state), output in zip(states.items(), fed_back, strict=True):
        lines += [f"[model.inputs.{name}]", f'from = "{output}"']
        lines.append(f"batch_axis = {batch_axis(state)}")
    (folder / "edgekit.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def batch_axis(state: dict[str, Any]) -> int:
    """Return the axis of a state that counts streams; eval.py writes it as the first."""
    shape = state["shape"]
    return int(shape.index(-1) if -1 in shape else state.get("batch_axis", 1))


def make(entry: Entry, steps: Sequence[Sequence[str]], folder: Path) -> Path | str:
    """Run passes on the model; return the file, or the refusal. Existing files are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    source, given, done = entry.model, prepare(entry, folder), []
    for step in (("clean",), *steps):
        done.append("-".join(step))
        target = folder / f"{'+'.join(done)}.onnx"
        name, *settings = step
        command = apply_command(name, source, target, settings=settings, options=given)
        if not target.exists():
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                return (run.stderr.strip().splitlines() or ["?"])[-1].strip()
        source = target
    return source


def inputs(entry: Entry, folder: Path) -> dict[str, np.ndarray]:
    """Return the inputs of one sample; random ones if the split holds raw files."""
    data = folder / "calib.npz"
    if data.exists():
        held = np.load(data)
        found = {name: held[name][:1] for name in held.files}
        for name, state in entry.facts.get("state", {}).items():
            found[name] = np.moveaxis(found[name], 0, batch_axis(state))
        constants = entry.facts.get("const", {})
        return found | {name: np.array(value) for name, value in constants.items()}
    rng = np.random.default_rng(0)
    opened = session(entry.model)
    return {each.name: _random_input(each, rng) for each in opened.get_inputs()}


def _random_input(spec: Any, rng: np.random.Generator) -> np.ndarray:  # noqa: ANN401
    shape = [1 if not isinstance(d, int) else d for d in spec.shape]
    if "int" in spec.type:
        return np.ones(shape, np.int64 if "64" in spec.type else np.int32)
    return rng.normal(size=shape).astype(np.float32)


def session(path: Path) -> ort.InferenceSession:
    """Open an onnxruntime session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latency_ratios(paths: Sequence[Path], feed: dict[str, np.ndarray]) -> list[float]:
    """Measure the median time of each file relative to the first, all run in turn."""
    opened = [session(path) for path in paths]
    wanted = [{i.name for i in each.get_inputs()} for each in opened]
    times: list[list[float]] = [[] for _ in paths]
    begun = time.monotonic()
    for number in range(_ROUNDS + 1):
        for run, names, taken in zip(opened, wanted, times, strict=True):
            given = {k: v for k, v in feed.items() if k in names}
            start = time.thread_time()
            run.run(None, given)
            if number:  # the first warms the caches
                taken.append(time.thread_time() - start)
        if number and time.monotonic() - begun > _MOST_SECONDS * len(paths):
            break
    medians = [statistics.median(each) for each in times]
    return [each / medians[0] for each in medians]


def _operators(model: Path) -> set[str]:
    """Return the operators of a model, including those in branches and loops."""
    index = GraphIndex(load_structure(model))
    return {node.op_type for each in (index, *index.inner()) for node in each.graph.node}


def rows(entry: Entry, out: Path, gains: Gains) -> Iterator[tuple[str, ...]]:
    """Yield the table rows of one model: the original, then each recipe; extend ``gains``."""
    recipes = RECIPES | (DYNAMIC if _operators(entry.model) & _RECURRENT else {})
    made: dict[str, Path | str] = {}
    seconds, folder = {}, out / entry.name
    for name, steps in recipes.items():
        begun = time.monotonic()
        made[name] = make(entry, steps, folder)
        seconds[name] = time.monotonic() - begun
    files = {name: path for name, path in made.items() if isinstance(path, Path)}
    ratios = latency_ratios([entry.model, *files.values()], inputs(entry, folder))
    fast = dict(zip(files, ratios[1:], strict=True))
    before = evaluate(entry.home, entry.facts, entry.model)
    yield entry.name, "fp32", f"{before.metric} {before.score:.4f}", "", "", "1.000", "1.00", ""
    found: dict[str, Evaluation] = {}
    for name, path in made.items():
        if isinstance(path, str):
            yield entry.name, name, f"refused: {path}", "", "", "", "", ""
            continue
        found[name] = evaluate(entry.home, entry.facts, path)
        plain, against = found.get(f"{name}, plain"), ""
        if plain is not None:
            gain = paired_gain(plain, found[name])
            against = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
            gains.setdefault(name, []).append(gain.relative_to(before))
        size = path.stat().st_size / entry.model.stat().st_size
        yield (
            entry.name,
            name,
            f"{found[name].score:.4f}",
            change(before.metric, before.score, found[name].score),
            against,
            f"{size:.3f}",
            f"{fast[name]:.2f}",
            f"{seconds[name]:.0f}",
        )


def change(metric: str, before: float, after: float) -> str:
    """Format the change of a score as better or worse."""
    better = (after < before) if metric in LOWER_IS_BETTER else (after > before)
    word = "" if after == before else (" better" if better else " worse")
    return f"{after - before:+.4f}{word}"


def summary(gains: Gains) -> Iterator[str]:
    """Yield the mean gain of each recipe over its plain form, and that of all together."""
    everything = [each for of_recipe in gains.values() for each in of_recipe]
    for name, of_recipe in [*gains.items(), ("all", everything)]:
        if of_recipe:
            mean = mean_gain(of_recipe)
            yield (
                f"{name}: mean gain over plain {mean.value:+.2%} [{mean.low:+.2%}, "
                f"{mean.high:+.2%}] of the distance of fp32 from a perfect score, over "
                f"{len(of_recipe)} comparisons"
            )


def main() -> None:
    """Run, score and time all recipes; print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("build/tasks"))
    parser.add_argument("--write", type=Path, help="a file for the table")
    options = parser.parse_args()
    lines = [f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}"]
    print("\n".join(lines))
    gains: Gains = {}
    for home in options.folders:
        for entry in entries(home.resolve(), options.only):
            for row in rows(entry, options.out.resolve(), gains):
                lines.append(f"| {' | '.join(row)} |")
                print(lines[-1], flush=True)
    for line in summary(gains):
        lines += ["", line]
        print(f"\n{line}")
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
