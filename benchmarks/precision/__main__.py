"""Comparison of 8-bit quantization with other tools, on every model of a folder of real models.

    python -m benchmarks.precision ZOO --peers PEER_PYTHON [--only NAME ...] [--out DIR]

Run it at the root of the repository. PEER_PYTHON is the interpreter of an environment with
onnxruntime, onnx and nncf:

    python -m venv peers && peers/bin/pip install onnx onnxruntime nncf

Each tool quantizes in its own process, from the same unlabeled samples; all results are scored on
the same labeled samples and timed in turn, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.precision.timing import open_session
from benchmarks.zoo import entries, write_project
from edgekit.config.project import load_project
from edgekit.data.dataset import Dataset, open_dataset
from edgekit.model import Model
from edgekit.onnx_graph.io import read_onnx
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.runtimes.ort import OrtModel

OURS = {
    "edgekit": ["clean", "quantize-static:weight_bits=8"],
    "edgekit-dynamic": ["clean", "quantize-dynamic:weight_bits=8"],
}
PEERS = ("ort-minmax", "ort-percentile", "ort-entropy", "nncf")
TEXT_PEERS = ("ort-dynamic", "nncf-transformer")
HERE = Path(__file__).parent
_ROUNDS = 5
_SECONDS = 1.0


def open_split(folder: Path, model: Model, split: str) -> Dataset:
    """Open a split of a project, bound to its model."""
    data = load_project(folder).data
    return open_dataset(
        getattr(data, split),
        model.signature,
        folder=folder,
        cache=folder / "cache",
        settings=data.preprocess,
        targets="required" if split == "evaluation" else "none",
    )


def write_samples(split: Dataset, model: Path, folder: Path) -> None:
    """Write samples as the model takes them, one .npy per input."""
    folder.mkdir(exist_ok=True)
    inputs = OrtModel(open_session(str(model), 1)).inputs
    files: dict[str, np.memmap] = {}
    for batch in iter_batches(split.samples, inputs, 1):
        for name, rows in batch.inputs.items():
            if name not in files:
                shape = (split.count, *rows.shape[1:])
                files[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", rows.dtype, shape
                )
            files[name][batch.start] = rows[0]


def score(path: Path, split: Dataset) -> np.ndarray:
    """Return for each sample whether the model is right."""
    model = OrtModel(open_session(str(path), 2))
    right = []
    for batch in iter_batches(split.samples, model.inputs, 1):
        found = next(iter(model.run(batch.inputs).values()))
        right.append(found.reshape(1, -1).argmax(1) == batch.labels)
    return np.concatenate(right)


def drop_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Compute the 95 % interval of the accuracy drop, in points, by paired bootstrap."""
    lost = before.astype(float) - after
    generator = np.random.default_rng(0)
    means = [generator.choice(lost, len(lost)).mean() for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def quantize_with(
    tool: str, python: Path, folder: Path, model: Path, target: Path
) -> dict[str, Any]:
    """Run one tool; return its seconds and peak memory, or the reason of its failure."""
    if tool in OURS:
        module = "benchmarks.precision.ours"
        command = [sys.executable, "-m", module, str(folder), str(target), *OURS[tool]]
    else:
        command = [str(python), str(HERE / "peers.py"), tool, str(model), str(folder / "calib")]
        command.append(str(target))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return {"failed": lines[-1][:120]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def time_all(files: dict[str, Path], data: Path, threads: int) -> dict[str, float]:
    """Measure the time of each model relative to ``fp32``: the median over several processes."""
    rounds = []
    for _ in range(_ROUNDS):
        command = [sys.executable, str(HERE / "timing.py"), str(data), str(threads), str(_SECONDS)]
        command += [f"{name}={path}" for name, path in files.items()]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        rounds.append(json.loads(done.stdout))
    return {name: statistics.median(r[name] / r["fp32"] for r in rounds) for name in files}


def compare(name: str, entry: dict[str, Any], options: argparse.Namespace) -> None:
    """Compare the tools on one model and print its lines."""
    folder = write_project(options.zoo, entry, options.out / name).resolve()
    source = read_onnx(Path(load_project(folder).model.path))
    evaluation = open_split(folder, source, "evaluation")
    write_samples(open_split(folder, source, "calibration"), source.path, folder / "calib")
    is_text = all("int" in spec.dtype for spec in source.signature.inputs)
    tools = [*(t for t in OURS if is_text or t == "edgekit"), *PEERS, *(TEXT_PEERS * is_text)]
    files, took = {"fp32": source.path}, {}
    for tool in (t for t in tools if options.tools is None or t in options.tools):
        target = folder / f"{tool}.onnx"
        took[tool] = quantize_with(tool, options.peers, folder, source.path, target)
        if "failed" not in took[tool]:
            files[tool] = target
    ratios = time_all(files, folder / "calib", options.threads)
    right = score(source.path, evaluation)
    for tool, facts in took.items():
        print(_row(name, tool, facts, files, ratios, right, evaluation), flush=True)


def _row(
    name: str,
    tool: str,
    facts: dict[str, Any],
    files: dict[str, Path],
    ratios: dict[str, float],
    right: np.ndarray,
    evaluation: Dataset,
) -> str:
    if "failed" in facts:
        return f"| {name} | {tool} | failed: {facts['failed']} | | | | |"
    after = score(files[tool], evaluation)
    low, high = drop_interval(right, after)
    drop = 100 * (right.mean() - after.mean())
    return (
        f"| {name} | {tool} | {files[tool].stat().st_size} "
        f"| {100 * after.mean():.2f} ({drop:+.2f} [{low:.2f}, {high:.2f}]) "
        f"| {ratios[tool]:.2f} | {facts['seconds']:.1f} | {facts['peak_rss_bytes'] / 2**20:.0f} |"
    )


def main() -> None:
    """Compare on every model and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--tools", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/precision"))
    options = parser.parse_args()
    print("| model | tool | file bytes | accuracy (drop, 95 % interval) | p50 / fp32 | s | MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, entry in entries(options.zoo).items():
        if options.only is None or name in options.only:
            compare(name, entry, options)


if __name__ == "__main__":
    main()
