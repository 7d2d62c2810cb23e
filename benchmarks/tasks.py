"""Quantize real models with and without refinements, and score the results on their tasks.

    python -m benchmarks.tasks FOLDER ... [--only NAME ...] [--out DIR] [--write FILE]

FOLDER holds MANIFEST.toml (one ``[[entry]]`` per model), a folder per entry and eval.py, which
scores any model file on an entry (``eval.py ENTRY MODEL --json``) and writes the calibration split
as the model's inputs (``--dump``; where it cannot, the split is read as ``edgekit build`` reads
it). Every model is cleaned and quantized to int8 by ``edgekit apply``: with the defaults, with
min-max ranges and no other refinement, and after weights of 3 bits. Models with recurrent layers
also go through ``quantize-dynamic``. Latencies are CPU times of one thread, measured by turns; the
ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.zoo import write_project
from edgekit.compare import tango_interval
from edgekit.graphs.onnx_file import load_structure

PLAIN = ("ranges=minmax", "equalise=false", "bias_correction=false", "float_layers=none")
RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "int8, plain": (("quantize", *PLAIN),),
    "int8": (("quantize",),),
    "3 bits, then int8, plain": (("weights", "bits=3"), ("quantize", *PLAIN)),
    "3 bits, then int8": (("weights", "bits=3"), ("quantize",)),
}
DYNAMIC: dict[str, tuple[tuple[str, ...], ...]] = {
    "int8, dynamic": (("quantize-dynamic",),),
    "3 bits, then int8, dynamic": (("weights", "bits=3"), ("quantize-dynamic",)),
}
_RECURRENT = {"LSTM", "GRU", "RNN"}
_LOWER_IS_BETTER = {"cer", "eer", "mae", "ppl"}
_NAMES = {"binary": "top1", "recon_auc": "auc"}
_ROUNDS, _MOST_SECONDS = 40, 20.0
_Z_95 = 1.959964
_HEAD = (
    "model",
    "recipe",
    "score",
    "change",
    "against plain, points, 95 %",
    "file / fp32",
    "p50 / fp32",
    "seconds",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model with its task: the folder of all entries, and its section of the manifest."""

    home: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """The name in the manifest."""
        return str(self.facts["name"])

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.home / self.name

    @property
    def model(self) -> Path:
        """The float model."""
        return self.folder / str(self.facts["model"])

    @property
    def metric(self) -> str:
        """The metric that eval.py reports."""
        metric = str(self.facts["metric"])
        return _NAMES.get(metric, metric)


def entries(home: Path, only: Sequence[str] | None) -> Iterator[Entry]:
    """Yield the ONNX models of a folder."""
    manifest = tomllib.loads((home / "MANIFEST.toml").read_text(encoding="utf-8"))
    for facts in manifest["entry"]:
        entry = Entry(home=home, facts=facts)
        if entry.model.suffix == ".onnx" and (only is None or entry.name in only):
            yield entry


def score(entry: Entry, model: Path) -> dict[str, Any]:
    """Score a model file with eval.py."""
    command = [sys.executable, str(entry.home / "eval.py"), str(entry.folder), str(model), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def hits(entry: Entry, model: Path) -> NDArray[np.bool_]:
    """Which samples a classifier is right on."""
    spec = importlib.util.spec_from_file_location("zoo_eval", entry.home / "eval.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(entry.home / "eval.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts = module.manifest(str(entry.folder))
    data = module.load_split(str(entry.folder), facts, "eval")
    made, count = module.run(facts, module.open_model(str(model), 1), data)
    right = np.asarray(data["y"][:count])
    made = made.reshape(count, -1)
    if facts["metric"] == "binary":
        return np.asarray((made[:, -1] > 0.5) == (right == 1))
    return np.asarray(made.argmax(1) - facts.get("label_offset", 0) == right)


def against_plain(entry: Entry, name: str, made: Mapping[str, Path | str]) -> str:
    """The gain of the defaults over plain on the same samples; classifiers alone have one."""
    before, after = made.get(f"{name}, plain"), made[name]
    if entry.metric != "top1" or not isinstance(before, Path) or not isinstance(after, Path):
        return ""
    old, new = hits(entry, before), hits(entry, after)
    won, lost = int((new & ~old).sum()), int((old & ~new).sum())
    low, high = tango_interval(won, lost, len(old), z=_Z_95)
    return f"{100 * (won - lost) / len(old):+.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def prepare(entry: Entry, folder: Path) -> list[str]:
    """Write the calibration split; returns the data arguments for ``edgekit apply``."""
    data = folder / "calib.npz"
    command = [sys.executable, str(entry.home / "eval.py"), str(entry.folder)]
    if data.exists():
        return ["-C", str(folder), "--data", str(data)]
    command += ["--split", "calib", "--dump", str(data)]
    if "kind" in entry.facts:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return ["-C", str(folder), "--data", str(data)]
    write_project(entry.home, entry.facts, folder)
    return ["-C", str(folder)]


def make(entry: Entry, steps: Sequence[Sequence[str]], folder: Path) -> Path | str:
    """Run passes on the model; returns the file, or the refusal. Existing files are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    source, given, done = entry.model, prepare(entry, folder), []
    for step in (("clean",), *steps):
        done.append("-".join(step))
        target = folder / f"{'+'.join(done)}.onnx"
        name, *settings = step
        command = [sys.executable, "-m", "edgekit", "apply", name, str(source), "-o", str(target)]
        command += [word for each in settings for word in ("--set", each)] + given
        if not target.exists():
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                return (run.stderr.strip().splitlines() or ["?"])[-1].strip()
        source = target
    return source


def inputs(entry: Entry, folder: Path) -> dict[str, np.ndarray]:
    """Return the inputs of one sample; random ones where the split holds raw files."""
    data = folder / "calib.npz"
    if data.exists():
        held = np.load(data)
        return {name: held[name][:1] for name in held.files}
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
    """Measure the median time of each file relative to the first, all run by turns."""
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


def rows(entry: Entry, out: Path) -> Iterator[tuple[str, ...]]:
    """Yield the table rows of one model: the original, then each recipe."""
    ops = {node.op_type for node in load_structure(entry.model).graph.node}
    recipes = RECIPES | (DYNAMIC if ops & _RECURRENT else {})
    made: dict[str, Path | str] = {}
    seconds, folder = {}, out / entry.name
    for name, steps in recipes.items():
        begun = time.monotonic()
        made[name] = make(entry, steps, folder)
        seconds[name] = time.monotonic() - begun
    files = {name: path for name, path in made.items() if isinstance(path, Path)}
    feed = inputs(entry, folder)
    ratios = latency_ratios([entry.model, *files.values()], feed)
    before = score(entry, entry.model)[entry.metric]
    yield entry.name, "fp32", f"{entry.metric} {before:.4f}", "", "", "1.000", "1.00", ""
    fast = dict(zip(files, ratios[1:], strict=True))
    for name, path in made.items():
        if isinstance(path, str):
            yield entry.name, name, f"refused: {path}", "", "", "", "", ""
            continue
        after = score(entry, path)[entry.metric]
        size = path.stat().st_size / entry.model.stat().st_size
        yield (
            entry.name,
            name,
            f"{after:.4f}",
            change(entry.metric, before, after),
            against_plain(entry, name, made),
            f"{size:.3f}",
            f"{fast[name]:.2f}",
            f"{seconds[name]:.0f}",
        )


def change(metric: str, before: float, after: float) -> str:
    """Format the change of a score as better or worse."""
    better = (after < before) if metric in _LOWER_IS_BETTER else (after > before)
    word = "" if after == before else (" better" if better else " worse")
    return f"{after - before:+.4f}{word}"


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
    for home in options.folders:
        for entry in entries(home.resolve(), options.only):
            for row in rows(entry, options.out.resolve()):
                lines.append(f"| {' | '.join(row)} |")
                print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
