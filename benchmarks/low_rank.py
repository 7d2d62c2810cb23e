"""Cost and accuracy of real models with low-rank products and convolutions.

    python benchmarks/low_rank.py ZOO [--only NAME ...] [--keep PART ...] [--out DIR]

ZOO is a folder as in ``benchmarks/zoo.py``. Every row is one ``edgekit build`` of one step,
compared with the original in the same run: the pass with its defaults, and plain SVD of the weights
with the same share of the parameters for each layer. Layers of text models are those behind
attention (FFN).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zoo

from edgekit.onnx_graph.cost import compute_cost
from edgekit.onnx_graph.io import load

# Layers to factorize by kind of model, as fnmatch patterns; all large ones by default.
_LAYERS = {
    "text": ("*/intermediate/dense/MatMul", "*layer.[0-9]/output/dense/MatMul"),
    "effnet": ("*_expand_conv*", "*_project_conv*", "*_conv_head*"),
}
_WAYS: dict[str, dict[str, Any]] = {
    "plain SVD": {"score": "plain", "allocation": "uniform", "repair": False},
    "low-rank": {},
    "low-rank, of=macs": {"of": "macs"},
}


def build(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Build one recipe in a project folder; return its JSON document, or ``None`` if refused.

    A step whose outputs do not correlate with those of the original is refused.
    """
    recipe = folder / "recipe.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    recipe.write_text("\n".join(['name = "thin"', "[[step]]", 'pass = "low-rank"', *lines]))
    command = [sys.executable, "-m", "edgekit", "build", "-C", str(folder), "--device", "tablet"]
    command += ["--runtime", "onnxruntime", "--recipe", str(recipe), "--allow-failing", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 3):
        return None
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def row(name: str, keep: float, way: str, model: Path, made: Path, facts: dict[str, Any]) -> str:
    """Format a line of the table."""
    found = {c["name"]: c for c in facts["candidates"]}
    before = found["original"]["measurements"][0]
    thin = next(c for n, c in found.items() if n != "original")
    after, compared = thin["measurements"][0], thin["comparison"]
    low, high = compared["interval"]
    was, now = (100 * m["correct"] / m["n"] for m in (before, after))
    speed = after["latency"]["quiet_p50_ms"] / before["latency"]["quiet_p50_ms"]
    costs = [compute_cost(load(path), {}) for path in (model, made)]
    macs, parameters = (
        getattr(costs[1], of) / getattr(costs[0], of) for of in ("macs", "parameters")
    )
    return (
        f"| {name} | {keep:g} | {way} | {parameters:.2f} | {macs:.2f} | {speed:.2f} "
        f"| {100 - 100 * compared['flips'] / compared['n']:.2f} "
        f"| {was:.2f} -> {now:.2f} ({compared['drop']:+.2f} [{low:.2f}, {high:.2f}]) |"
    )


def rows(zoo_folder: Path, entry: dict[str, Any], keeps: list[float], out: Path) -> Iterator[str]:
    """Build all recipes of one model and yield the lines of the table."""
    name = entry["name"]
    folder = zoo.write_project(zoo_folder, entry, out / name)
    layers = _LAYERS.get(name.partition("-")[0], ())
    for keep in keeps:
        for way, how in _WAYS.items():
            facts = build(folder, {"keep": keep, "layers": layers, **how})
            if facts is None:
                yield f"| {name} | {keep:g} | {way} | - | - | - | - | refused |"
                continue
            made = folder / "build" / "tablet" / "model.onnx"
            yield row(name, keep, way, zoo_folder / name / entry["model"], made, facts)


def main() -> None:
    """Build all models and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--keep", nargs="*", type=float, default=[0.25, 0.375, 0.5, 0.625, 0.75])
    parser.add_argument("--out", type=Path, default=Path("build/low-rank"))
    options = parser.parse_args()
    print(
        "| model | keep | how | parameters / before | MACs / before | p50 / before "
        "| same answer, % | accuracy (drop, 95 % interval) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, entry in zoo.entries(options.zoo).items():
        if options.only is None or name in options.only:
            for line in rows(options.zoo, entry, options.keep, options.out):
                print(line, flush=True)


if __name__ == "__main__":
    main()
