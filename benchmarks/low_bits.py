"""Transfer size and accuracy of real models with low-bit weights.

    python benchmarks/low_bits.py ZOO [--only NAME ...] [--bits BITS ...] [--out DIR]

ZOO is a folder as in ``benchmarks/zoo.py``. Every row is one ``edgekit build`` of a fixed recipe
(clean, weights, then int8 activations), compared with the original in the same run; the transfer is
that of the packed model. The last column names the layers that cause most of the divergence.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import zoo

# Pass that quantizes the activations, by kind of model; the default is static.
_AFTER = {"text": "quantize-dynamic"}
_NAMED = 3


def build(folder: Path, bits: float, after: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build one recipe in a project folder; return the facts of the original and the candidate."""
    steps = ("clean", f"quantize-weights:bits={bits},weight_bits=8", f"{after}:weight_bits=8")
    return zoo.one_recipe(folder, steps)


def row(name: str, bits: float, original: dict[str, Any], made: dict[str, Any]) -> str:
    """Format a line of the table."""
    before = original["measurements"][0]
    after, compared = made["measurements"][0], made["comparison"]
    low, high = compared["interval"]
    was, now = (100 * m["correct"] / m["n"] for m in (before, after))
    smaller = before["model_bytes"] / after["transfer_bytes"]
    speed = after["latency"]["quiet_p50_ms"] / before["latency"]["quiet_p50_ms"]
    return (
        f"| {name} | {bits:g} | {after['model_bytes']} | {after['transfer_bytes']} "
        f"| {smaller:.2f} | {was:.2f} -> {now:.2f} ({compared['drop']:+.2f} "
        f"[{low:.2f}, {high:.2f}]) | {speed:.2f} | {_costly(made['layers'])} |"
    )


def _costly(layers: list[dict[str, Any]]) -> str:
    total = sum(layer["kl"] for layer in layers) or 1.0
    worst = sorted(layers, key=lambda layer: -layer["kl"])[:_NAMED]
    return ", ".join(f"{w['layer']} {100 * w['kl'] / total:.0f} %" for w in worst)


def main() -> None:
    """Build all models and print a table."""
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
            after = _AFTER.get(name.partition("-")[0], "quantize-static")
            for bits in options.bits:
                print(row(name, bits, *build(folder, bits, after)), flush=True)


if __name__ == "__main__":
    main()
