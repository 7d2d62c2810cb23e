"""Digests of the files that every pass makes, by two checkouts of edgekit side by side.

    python -m benchmarks.digests FOLDER ... --other CHECKOUT [--only NAME ...] [--jobs 2]

FOLDER holds MANIFEST.toml and eval.py, as for `benchmarks.tasks`. Each recipe is run on each model
by ``edgekit apply`` of this checkout and of the other one, on the same calibration samples. A row
gives both digests (SHA-256, shortened) or the refusal. Passes that choose by measured time may
differ from run to run. The exit code is 1 if any pair differs. What is known is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.tasks import Entry, entries, prepare
from benchmarks.zoo import apply_command

HERE = Path(__file__).resolve().parents[1]
# Passes by the names of version 0.1, which older checkouts take as well.
INT8 = ("quantize", "weight_bits=8")
RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "clean": (("clean",),),
    "static int8": (("clean",), INT8),
    "dynamic int8": (("clean",), ("quantize-dynamic",)),
    "3 bits, static int8": (("clean",), ("weights", "bits=3"), INT8),
    "half of the weights zero": (("prune", "sparsity=0.5"),),
    "channels": (("prune-channels", "remove=0.25"),),
    "low rank": (("low-rank", "keep=0.75"),),
    "float16": (("float16",),),
    "tflite": (("clean",), ("tflite",)),
    "int8 tflite": (("clean",), INT8, ("tflite",)),
}


def run_recipe(entry: Entry, recipe: str, checkout: Path, folder: Path) -> str:
    """Run a recipe by the edgekit of a checkout; return the digest of its file, or the refusal."""
    work = folder / checkout.name / entry.name / recipe.replace(" ", "-").replace(",", "")
    known = work / "result.txt"
    if known.exists():
        return known.read_text(encoding="utf-8")
    work.mkdir(parents=True, exist_ok=True)
    source, data = entry.model, prepare(entry, folder / "data" / entry.name)
    environment = {**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'targets'}"}
    result = ""
    for number, (name, *settings) in enumerate(RECIPES[recipe]):
        made = work / f"{number}{'.tflite' if name == 'tflite' else '.onnx'}"
        done = subprocess.run(
            apply_command(name, source, made, settings=settings, options=data),
            env=environment,
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            result = f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1][:60]}"
            break
        source, result = made, hashlib.sha256(made.read_bytes()).hexdigest()[:16]
    known.write_text(result, encoding="utf-8")
    return result


def main() -> None:
    """Print a row for each model and recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/digests"))
    given = parser.parse_args()
    found = [e for home in given.folders for e in entries(home.resolve(), given.only)]
    out, trees = given.out.resolve(), (given.other.resolve(), HERE)
    for entry in found:
        (out / "data" / entry.name).mkdir(parents=True, exist_ok=True)
        prepare(entry, out / "data" / entry.name)
    cases = [(entry, recipe) for entry in found for recipe in RECIPES]
    different = 0
    print("| model | recipe | other checkout | this checkout |\n| --- | --- | --- | --- |")
    with ThreadPoolExecutor(given.jobs) as pool:
        for (entry, recipe), (old, new) in zip(
            cases,
            pool.map(lambda c: [run_recipe(*c, tree, out) for tree in trees], cases),
            strict=True,
        ):
            different += old != new
            mark = "" if old == new else " (differs)"
            print(f"| {entry.name} | {recipe} | {old} | {new}{mark} |", flush=True)
    print(f"\n{len(cases)} pairs, {different} different")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
