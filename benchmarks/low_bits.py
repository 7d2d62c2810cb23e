"""Real models with weights of few bits: what they weigh on their way, and what they lose.

    python benchmarks/low_bits.py ZOO [--only NAME ...] [--bits BITS ...] [--out DIR]

ZOO is a folder as ``benchmarks/zoo.py`` takes it. Every row is one ``edgekit build`` of a fixed
recipe (clean, weights, then int8 activations), against the original in the same run; the transfer
is that of the packed model. The last column names the layers that make most of the divergence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import zoo

# What makes int8 of the activations; text models compute theirs best at run time.
_AFTER = {"text": "quantize-dynamic"}
_NAMED = 3


def build(folder: Path, bits: float, after: str) -> dict[str, Any]:
    """Build one recipe in a project folder; the candidates of its JSON document, by name."""
    steps = ("clean", f"weights:bits={bits},weight_bits=8", f"{after}:weight_bits=8")
    command = [sys.executable, "-m", "edgekit", "build", "-C", str(folder), "--device", "tablet"]
    command += [word for step in steps for word in ("--step", step)]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{folder.name}: exit {done.returncode}")
    return {c["name"]: c for c in json.loads(done.stdout)["candidates"]}


def row(name: str, bits: float, found: dict[str, Any]) -> str:
    """One line of the table."""
    before = found["original"]["measurements"][0]
    made = next(c for n, c in found.items() if n != "original")
    after, compared = made["measurements"][0], made["comparison"]
    low, high = compared["interval_points"]
    was, now = (100 * m["correct"] / m["n"] for m in (before, after))
    smaller = before["model_bytes"] / after["transfer_bytes"]
    speed = after["latency"]["quiet_p50_ms"] / before["latency"]["quiet_p50_ms"]
    return (
        f"| {name} | {bits:g} | {after['model_bytes']} | {after['transfer_bytes']} "
        f"| {smaller:.2f} | {was:.2f} -> {now:.2f} ({compared['drop_points']:+.2f} "
        f"[{low:.2f}, {high:.2f}]) | {speed:.2f} | {_costly(made['layers'])} |"
    )


def _costly(layers: list[dict[str, Any]]) -> str:
    total = sum(layer["kl"] for layer in layers) or 1.0
    worst = sorted(layers, key=lambda layer: -layer["kl"])[:_NAMED]
    return ", ".join(f"{w['layer']} {100 * w['kl'] / total:.0f} %" for w in worst)


def main() -> None:
    """Build them all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--bits", nargs="*", type=float, default=[4.0, 3.0, 2.5])
    parser.add_argument("--out", type=Path, default=Path("build/low-bits"))
    options = parser.parse_args()
    print(
        "| model | bits | file | transfer | fp32 file / transfer "
        "| accuracy (drop, 95 % interval) | p50 / fp32 | divergence made by |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, entry in zoo.entries(options.zoo).items():
        if options.only is None or name in options.only:
            folder = zoo.write_project(options.zoo, entry, options.out / name)
            after = _AFTER.get(name.partition("-")[0], "quantize")
            for bits in options.bits:
                print(row(name, bits, build(folder, bits, after)), flush=True)


if __name__ == "__main__":
    main()
