"""Cost and accuracy of real models with fewer channels, heads and neurons.

    python benchmarks/structure.py ZOO [--only NAME ...] [--out DIR]

ZOO is a folder as in ``benchmarks/zoo.py``. Each model is pruned in three ways: uniformly by weight
magnitude without repair, the same with the remaining weights refitted, and by the defaults of
``prune-channels``. Accuracy is that on the evaluation samples; multiply-accumulates, latency (one
thread, timed in turn, medians) and file size are relative to the original.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import zoo

from edgekit.onnx_graph.cost import compute_cost
from edgekit.onnx_graph.io import load

# Share to remove by model; by default a quarter of the multiply-accumulates.
_PARTS = {
    "med-pneumonia": ("remove=0.5",),
    "ic-resnet8": ("remove=0.25",),
    "effnet-lite0": ("remove=0.15",),
    "text-minilm-agnews": ("remove=0.3", "of=units", "kinds=heads,neurons"),
}
_OTHERWISE = ("remove=0.25",)
_PLAIN = ("score=magnitude", "allocation=uniform")
_WAYS = {
    "uniform magnitude": (*_PLAIN, "repair=false"),
    "uniform magnitude, refitted": _PLAIN,
    "prune-channels": (),
}
# Size of free dimensions after the batch.
_FREE = 64
_ROUNDS, _SECONDS = 41, 0.02
# Largest number of characters of a refusal in the table.
_TOLD = 160


def prune(source: Path, folder: Path, made: Path, settings: tuple[str, ...]) -> str:
    """Write the pruned model; return the reason if the pass refuses it."""
    done = subprocess.run(
        zoo.apply_command(
            "prune-channels", source, made, settings=settings, options=["-C", str(folder)]
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[-_TOLD:]


def accuracy(path: Path, folder: Path, entry: dict[str, Any]) -> float:
    """Measure the percentage of correct evaluation samples of a model by ``edgekit bench``."""
    command = [sys.executable, "-m", "edgekit", "bench", str(path), "local", "-C", str(folder)]
    settings = tomllib.loads((folder / "edgekit.toml").read_text(encoding="utf-8"))
    command += ["--eval", settings["data"]["evaluation"], "--metric", entry["metric"], "--json"]
    facts = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    measured = _find_object(facts, "correct")
    return 100 * float(measured["correct"]) / float(measured["n"])


def _find_object(facts: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Find the first object of a document that has a key."""
    if isinstance(facts, dict) and facts.get(key) is not None:
        return facts
    children = facts.values() if isinstance(facts, dict) else facts
    for child in children if isinstance(facts, dict | list) else ():
        found = _find_object(child, key)
        if found:
            return found
    return {}


def latencies(paths: list[Path]) -> list[float]:
    """Measure each model's time relative to the first one's in the same round, as a median."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [ort.InferenceSession(str(p), options) for p in paths]
    fed = {each.name: _make_input(each) for each in sessions[0].get_inputs()}
    for session in sessions:
        session.run(None, fed)
    often = max(1, int(_SECONDS / max(_measure_seconds(sessions[0], fed, 1), 1e-6)))
    times = np.array([[_measure_seconds(s, fed, often) for s in sessions] for _ in range(_ROUNDS)])
    return [float(ratio) for ratio in np.median(times / times[:, :1], axis=0)]


def _measure_seconds(session: ort.InferenceSession, fed: dict[str, Any], often: int) -> float:
    start = time.perf_counter()
    for _ in range(often):
        session.run(None, fed)
    return time.perf_counter() - start


def _make_input(tensor: Any) -> Any:  # noqa: ANN401 - onnxruntime has no types
    sizes = [s if isinstance(s, int) else _FREE for s in tensor.shape[1:]]
    shape = (tensor.shape[0] if isinstance(tensor.shape[0], int) else 1, *sizes)
    if "float" in tensor.type:
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return np.ones(shape, np.int32 if "int32" in tensor.type else np.int64)


def _macs(path: Path) -> int:
    proto = load(path)
    free = {d.dim_param for v in proto.graph.input for d in v.type.tensor_type.shape.dim[1:]}
    return compute_cost(proto, dict.fromkeys(free - {""}, _FREE)).macs


def rows(name: str, entry: dict[str, Any], zoo_folder: Path, out: Path) -> list[str]:
    """Prune one model in all ways and return the lines of the table."""
    folder = zoo.write_project(zoo_folder, entry, out / name)
    source = zoo_folder / name / entry["model"]
    part = _PARTS.get(name, _OTHERWISE)
    paths, told = {"original": source}, []
    for way, settings in _WAYS.items():
        path = folder / f"{way.replace(' ', '-').replace(',', '')}.onnx"
        refused = prune(source, folder, path, (*part, *settings))
        if refused:
            told.append(f"| {name} | {' '.join(part)} | {way} | {refused} | | | |")
        else:
            paths[way] = path
    before, time_of = _macs(source), latencies(list(paths.values()))
    was = accuracy(source, folder, entry)
    for ratio, (way, path) in list(zip(time_of, paths.items(), strict=True))[1:]:
        macs = _macs(path) / before
        now = accuracy(path, folder, entry)
        file = path.stat().st_size / source.stat().st_size
        told.append(
            f"| {name} | {' '.join(part)} | {way} | {was:.2f} -> {now:.2f} ({now - was:+.2f}) "
            f"| {macs:.3f} | {ratio:.2f} | {file:.2f} |"
        )
    return told


def main() -> None:
    """Prune all models and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("build/structure"))
    options = parser.parse_args()
    print("| model | asked | way | accuracy | MACs | p50 | file |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, entry in zoo.entries(options.zoo).items():
        if options.only is None or name in options.only:
            for line in rows(name, entry, options.zoo.resolve(), options.out):
                print(line, flush=True)


if __name__ == "__main__":
    main()
