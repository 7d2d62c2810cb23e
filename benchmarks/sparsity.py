"""Accuracy and transfer size of sparse real models, also with int8.

    python benchmarks/sparsity.py ZOO [--only NAME ...] [--sparsity PART ...] [--out DIR]

ZOO is a folder as in ``benchmarks/zoo.py``. Every row is one ``edgekit build`` of a fixed recipe
(clean, prune, then int8), compared with the original in the same run; the accuracy of the pruned
float model comes from a build without the int8 step. Magnitude and ours have the same sparsity in
each layer where the allocation is uniform. p50 / fp32 is that of the pruned float model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import zoo

# Pass that quantizes the activations, by kind of model; the default is static.
_INT8 = {"text": "quantize-dynamic"}
_WAYS = {
    "magnitude, uniform": "score=magnitude,allocation=uniform",
    "magnitude, measured": "score=magnitude",
    "ours, uniform": "allocation=uniform",
    "ours, measured": "allocation=measured",
}


def rows(name: str, folder: Path, sparsities: Sequence[float]) -> Iterator[str]:
    """Build all recipes of one model and yield the lines of the table."""
    asked = [
        (f"{100 * part:g} %", way, f"sparsity={part},{settings}")
        for part in sparsities
        for way, settings in _WAYS.items()
    ]
    asked.append(("2:4", "ours", "pattern=2:4"))
    for each in asked:
        yield _row(name, folder, *each)


def _row(name: str, folder: Path, sparsity: str, way: str, settings: str) -> str:
    prune = ("clean", f"prune-weights:{settings}")
    before, pruned = zoo.one_recipe(folder, prune)
    _, small = zoo.one_recipe(
        folder, (*prune, _INT8.get(name.partition("-")[0], "quantize-static"))
    )
    was, now, then = (c["measurements"][0] for c in (before, pruned, small))
    percent = [100 * m["correct"] / m["n"] for m in (was, now, then)]
    speed = now["latency"]["quiet_p50_ms"] / was["latency"]["quiet_p50_ms"]
    return (
        f"| {name} | {sparsity} | {way} | {percent[0]:.2f} | {percent[1]:.2f} | {percent[2]:.2f} "
        f"| {now['transfer_bytes']} | {then['transfer_bytes']} "
        f"| {was['model_bytes'] / then['transfer_bytes']:.2f} | {speed:.2f} |"
    )


def main() -> None:
    """Build all models and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--sparsity", nargs="*", type=float, default=[0.5, 0.7, 0.9])
    parser.add_argument("--out", type=Path, default=Path("build/sparsity"))
    options = parser.parse_args()
    print(
        "| model | zeros | how | fp32 | pruned | pruned, int8 | transfer, pruned "
        "| transfer, int8 | fp32 file / transfer | p50 / fp32 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, entry in zoo.entries(options.zoo).items():
        if options.only is None or name in options.only:
            folder = zoo.write_project(options.zoo, entry, options.out / name)
            for line in rows(name, folder, options.sparsity):
                print(line, flush=True)


if __name__ == "__main__":
    main()
