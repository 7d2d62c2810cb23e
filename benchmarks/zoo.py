"""Build of every model of a folder of real models for a device, with a table of results.

    python benchmarks/zoo.py ZOO [--device tablet] [--only NAME ...] [--out DIR]

ZOO holds MANIFEST.toml (one ``[[entry]]`` per model: name, model, preprocess, crop, data) and a
folder per model with calib.npz and eval.npz, or image folders with a CSV each. Size, accuracy and
latency of the original and of the chosen candidate come from one run, timed in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def entries(zoo: Path) -> dict[str, dict[str, Any]]:
    """Return the models of the manifest, by name."""
    manifest = tomllib.loads((zoo / "MANIFEST.toml").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in manifest["entry"]}


def write_project(zoo: Path, entry: dict[str, Any], folder: Path) -> Path:
    """Write the edgekit.toml of an entry; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    home = zoo / entry["name"]
    data = (home / entry.get("data", ".")).resolve()
    splits = {split: _split(data, split) for split in ("calib", "eval")}
    lines = [
        "[model]",
        f'path = "{home.resolve() / entry["model"]}"',
        "[data]",
        f'calibration = "{splits["calib"]}"',
        f'evaluation = "{splits["eval"]}"',
        f'metric = "{entry["metric"]}"',
        *_preprocess(entry),
    ]
    (folder / "edgekit.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _split(data: Path, split: str) -> Path:
    packed = data / f"{split}.npz"
    return packed if packed.exists() else data / split


def _preprocess(entry: dict[str, Any]) -> list[str]:
    settings = dict(entry.get("preprocess", {}))
    if "crop" in entry:
        settings["crop"] = entry["crop"]
    if "NCHW" in entry["input"]:
        settings["layout"] = "NCHW"
    if not settings:
        return []
    return ["[data.preprocess]", *(f"{key} = {json.dumps(v)}" for key, v in settings.items())]


def apply_command(
    name: str,
    source: Path,
    target: Path,
    *,
    settings: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """Return the command that runs a pass with settings (``KEY=VALUE``) and further options."""
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "edgekit", "apply", name, str(source), "-o", str(target)]
    return [*command, *words, *options]


def build(folder: Path, device: str, steps: Sequence[str] = ()) -> dict[str, Any]:
    """Run ``edgekit build`` in a project folder, with steps if given; return its JSON document."""
    command = [sys.executable, "-m", "edgekit", "build", "-C", str(folder), "--device", device]
    command += [word for step in steps for word in ("--step", step)]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{folder.name}: exit {done.returncode}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def one_recipe(folder: Path, steps: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build one recipe for a tablet; return the facts of the original and the candidate."""
    found = {c["name"]: c for c in build(folder, "tablet", steps)["candidates"]}
    return found["original"], next(c for name, c in found.items() if name != "original")


def row(name: str, facts: dict[str, Any]) -> str:
    """Format a line of the table: the original and the chosen candidate."""
    candidates = {c["name"]: c for c in facts["candidates"]}
    before = candidates["original"]["measurements"][0]
    chosen = candidates[facts["chosen"] or facts["nearest"]]
    after = chosen["measurements"][0]
    compared = chosen["comparison"]
    low, high = compared["interval"]
    was, now = (100 * m["correct"] / m["n"] for m in (before, after))
    return (
        f"| {name} | {chosen['name'] if facts['chosen'] else 'none'} "
        f"| {after['model_bytes'] / before['model_bytes']:.3f} "
        f"| {was:.2f} -> {now:.2f} ({compared['drop']:+.2f} [{low:.2f}, {high:.2f}]) "
        f"| {after['latency']['quiet_p50_ms'] / before['latency']['quiet_p50_ms']:.2f} |"
    )


def main() -> None:
    """Build all models and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--device", default="tablet")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("build/zoo"))
    options = parser.parse_args()
    print("| model | chosen | file / fp32 | accuracy (drop, 95 % interval) | p50 / fp32 |")
    print("| --- | --- | --- | --- | --- |")
    for name, entry in entries(options.zoo).items():
        if options.only is None or name in options.only:
            folder = write_project(options.zoo, entry, options.out / name)
            print(row(name, build(folder, options.device)), flush=True)


if __name__ == "__main__":
    main()
