"""Builds of real models of other tasks than classification, judged by an independent eval.py.

    python -m benchmarks.task_builds FOLDER [--only NAME ...] [--device NAME] [--out DIR]
                                            [--step PASS ...] [--write FILE]

FOLDER holds MANIFEST.toml (one ``[[entry]]`` per model), a folder per entry and eval.py, which
scores any model file on an entry. Each entry is built as a user would, with its own metric. A line
holds if edgekit's value equals that of eval.py on the original and on the packed candidate (1e-6,
relative above 1; mAP 5e-4), the gate passes no candidate that loses more than the margin, a passing
candidate has at most .30 of the file of the original where weights make most of it (the packed one,
or one that is slower), and the packed candidate is faster where a sample takes more than .1 ms. If
no candidate passes, the nearest is packed to compare its value, and size and speed do not count.
The exit code is 1 if a line does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.task_parts import Run
from benchmarks.task_projects import name_metric, write_project
from benchmarks.tasks import Entry, entries

_TOLERANCE, _MAP_TOLERANCE = 1e-6, 5e-4
_MOST_FILE_RATIO, _DOMINANT = 0.30, 0.95
_SHORTEST_MS = 0.1
_HEAD = (
    "entry", "metric", "float: edgekit", "eval.py", "packed", "edgekit", "eval.py",
    "loss, 95 %", "margin", "verdict", "file / fp32", "smallest",
    "p50 / fp32", "seconds", "does not hold",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Built:
    """Result of a build: its JSON document, the packed model file, and the seconds it took."""

    facts: dict[str, Any]
    model: Path | None
    seconds: float

    def get_candidate(self, name: str) -> dict[str, Any]:
        """Return the facts of a candidate."""
        found: dict[str, Any] = next(c for c in self.facts["candidates"] if c["name"] == name)
        return found

    @property
    def shown(self) -> dict[str, Any]:
        """Return the chosen candidate, or the nearest one."""
        return self.get_candidate(self.facts["nearest"])


def build(folder: Path, device: str, steps: Sequence[str]) -> Built | str:
    """Run ``edgekit build`` in a project; return its result, or its error."""
    out = folder / "built"
    command = [sys.executable, "-m", "edgekit", "build", "-C", str(folder), "--device", device]
    command += ["--out", str(out), "--allow-failing", "--json"]
    command += [word for step in steps for word in ("--step", step)]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode not in (0, 3):
        lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
        return f"exit {done.returncode}: {' '.join(lines) or done.stderr[-500:]}"
    facts = json.loads(done.stdout)
    models = sorted(out.glob("model.*")) if facts["bundle"] else []
    return Built(facts=facts, model=models[0] if models else None, seconds=seconds)


def evaluate(entry: Entry, model: Path) -> float:
    """Score a model file by eval.py, one sample a run, as edgekit does and as apps do.

    In larger batches the activations of dynamically quantized layers share a scale.
    """
    run = Run(entry.home, entry.facts, model)
    run.model.batch = 1
    return run.score()


def compute_weight_share(model: Path) -> float:
    """Return the share of a model file that large weights make."""
    graph = onnx.load(model).graph
    held = [*graph.initializer, *_iter_constants(graph)]
    sizes = [
        int(np.prod(t.dims)) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize
        for t in held
        if np.prod(t.dims) >= 1024
    ]
    return sum(sizes) / model.stat().st_size


def _iter_constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of Constant nodes, and all tensors of branches and loops."""
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield attribute.t
            for inner in [attribute.g, *attribute.graphs]:
                yield from inner.initializer
                yield from _iter_constants(inner)


def report(entry: Entry, built: Built) -> tuple[str, ...]:
    """Return the line of an entry; the last cell says what does not hold."""
    metric = name_metric(entry.facts)
    tolerance = _MAP_TOLERANCE if metric.startswith("map") else _TOLERANCE
    before, after = built.get_candidate("original"), built.shown
    compared = after["comparison"]
    faults = []
    values = []
    for candidate, path in ((before, entry.model), (after, built.model)):
        ours = candidate["measurements"][0]["scores"][metric]
        theirs = evaluate(entry, path) if path else float("nan")
        values.append((ours, theirs))
        if not abs(ours - theirs) <= tolerance * max(1, abs(theirs)):
            faults.append(f"value of {candidate['name']} differs by {ours - theirs:.2g}")
    faults += [
        f"{c['name']} passes with a loss of {c['comparison']['drop']:.3g}"
        for c in built.facts["candidates"]
        if c["passes"] and c["comparison"]["drop"] > c["comparison"]["margin"]
    ]
    if compared["meaningless"]:
        faults.append("meaningless")
    first, second = (c["measurements"][0] for c in (before, after))
    slowness = second["latency"]["quiet_p50_ms"] / first["latency"]["quiet_p50_ms"]
    size = second["model_bytes"] / first["model_bytes"]
    passing = [c["measurements"][0] for c in built.facts["candidates"] if c["passes"]]
    smallest = min((m["model_bytes"] for m in passing), default=second["model_bytes"])
    smallest /= first["model_bytes"]
    passes = bool(built.facts["passes"])
    if passes and after is not before:
        faults += _list_costly(entry, before, smallest, slowness)
    (low, high), unit = compared["interval"], compared["unit"]
    return (
        entry.name,
        metric,
        *(f"{value:.6f}" for value in values[0]),
        after["name"] if passes else f"none ({after['name']})",
        *(f"{value:.6f}" for value in values[1]),
        f"{compared['drop']:+.3f} [{low:.3f}, {high:.3f}] {unit}".rstrip(),
        f"{compared['margin']:g}",
        ", ".join(f"{c['name']} {c['outcome']}" for c in after["verdict"]["checks"]
                  if c["metric"] or c["outcome"] != "holds"),
        f"{size:.3f}",
        f"{smallest:.3f}",
        f"{slowness:.2f}",
        f"{built.seconds:.0f}",
        "; ".join(faults) or "-",
    )  # fmt: skip


def _list_costly(entry: Entry, before: dict[str, Any], size: float, slowness: float) -> list[str]:
    """Return which of size and speed is not better enough."""
    faults = []
    if size > _MOST_FILE_RATIO and compute_weight_share(entry.model) >= _DOMINANT:
        faults.append(f"file is {size:.3f}")
    time_ms = before["measurements"][0]["latency"]["quiet_p50_ms"]
    if slowness >= 1 and time_ms > _SHORTEST_MS:
        faults.append("not faster")
    return faults


def report_trouble(entry: Entry, head: Sequence[str], trouble: str) -> tuple[str, ...]:
    """Return the line of an entry without figures."""
    return (entry.name, *[""] * (len(head) - 2), trouble)


def print_table(
    head: Sequence[str],
    options: argparse.Namespace,
    report_entry: Callable[[Entry], tuple[str, ...]],
) -> bool:
    """Print a line for each entry that is no classifier; return whether all hold.

    Args:
        head: Names of the columns; the last one tells what does not hold, or is ``-``.
        options: Options of the command: ``folder``, ``only`` and ``write``.
        report_entry: Returns the line of an entry.
    """
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    print("\n".join(lines), flush=True)
    holds = True
    for entry in entries(options.folder.resolve(), options.only):
        if "kind" not in entry.facts:  # a classifier, see benchmarks.zoo
            continue
        row = report_entry(entry)
        holds &= row[-1] == "-"
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return holds


def main() -> None:
    """Build the entries and print the table line by line; exit 1 if a line does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--device", default="tablet")
    parser.add_argument("--out", type=Path, default=Path("build/task_builds"))
    parser.add_argument("--step", nargs="*", default=[], help="one recipe instead of a search")
    parser.add_argument("--write", type=Path, help="a file for the table")
    options = parser.parse_args()

    def report_entry(entry: Entry) -> tuple[str, ...]:
        folder = write_project(entry.home, entry.facts, options.out.resolve() / entry.name)
        built = build(folder, options.device, options.step)
        return (
            report_trouble(entry, _HEAD, built) if isinstance(built, str) else report(entry, built)
        )

    sys.exit(not print_table(_HEAD, options, report_entry))


if __name__ == "__main__":
    main()
