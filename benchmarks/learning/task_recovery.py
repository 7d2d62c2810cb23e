"""Recovery of detectors, segmenters and others after a third of their arithmetic was removed.

    python -m benchmarks.learning.task_recovery FOLDER [--only NAME ...] [--learn SETTINGS]
                                                [--remove SHARE] [--samples N] [--out DIR]

FOLDER is as in ``benchmarks.task_builds``. Every entry is built twice: with fewer channels, and
with fewer channels and the pass ``distil``. A line gives the metric of the original, without and
with learning, and the part of the drop that came back.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.task_builds import build
from benchmarks.task_projects import name_metric, shrink_project, write_project
from benchmarks.tasks import Entry, entries


def measure(entry: Entry, folder: Path, remove: float, learn: str, samples: int) -> str:
    """Build an entry without and with learning; return its line."""
    write_project(entry.home, entry.facts, folder)
    if samples:
        shrink_project(folder, samples)
    steps = ["clean", f"prune-channels:remove={remove}"]
    found = [build(folder, "tablet", steps), build(folder, "tablet", [*steps, f"distil:{learn}"])]
    values: list[float] = []
    metric = name_metric(entry.facts)
    for built in found:
        if isinstance(built, str):
            return f"| {entry.name} | {built} |"
        facts = {c["name"]: c for c in built.facts["candidates"]}
        made = [_read_value(c, metric) for name, c in facts.items() if name != "original"]
        if not made:
            reasons = [r["reason"] for r in built.facts["rejected"]]
            return f"| {entry.name} | {'; '.join(reasons)} |"
        values += [made[0]] if values else [_read_value(facts["original"], metric), made[0]]
    before, pruned, learned = values
    part = (learned - pruned) / (before - pruned) if before != pruned else 1.0
    return (
        f"| {entry.name} | {metric} | {before:.4g} | {pruned:.4g} "
        f"| {learned:.4g} | {100 * part:.0f} % |"
    )


def _read_value(candidate: dict[str, Any], metric: str) -> float:
    value: float = candidate["measurements"][0]["scores"][metric]
    return value


def main() -> None:
    """Build the entries and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--remove", type=float, default=0.3)
    parser.add_argument("--learn", default="minutes=8")
    parser.add_argument("--samples", type=int, default=0, help="0 = all")
    parser.add_argument("--out", type=Path, default=Path("build/task-recovery"))
    options = parser.parse_args()
    print("| entry | metric | original | pruned | learned | part of the drop that came back |")
    print("| --- | --- | --- | --- | --- | --- |")
    for entry in entries(options.folder, options.only):
        folder = options.out / entry.name
        line = measure(entry, folder, options.remove, options.learn, options.samples)
        print(line, flush=True)


if __name__ == "__main__":
    main()
