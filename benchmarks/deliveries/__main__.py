"""Interrupted deliveries of every kind, with checks of the device and of the reported result.

    python -m benchmarks.deliveries [--pushes 200] [--power-cuts 30] [--seed N] [--kinds KIND ...]
                                    [--out FILE] [--resume]

Pushes go to private SSH servers on this machine: links are cut, processes killed, disks filled.
Power is cut to emulated devices (``EDGEKIT_DEVICES`` names the folder of scripts that boot them).
After each one the device must serve the old or the new release, complete and able to run; the exit
code must be true, also after the time for confirmation is over; ``previous`` must name the right
release; and the next ordinary push must succeed. The exit code is 1 if there is a fault. Results
are kept as JSON lines; ``--resume`` continues after the last.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.deliveries.kinds import KINDS
from benchmarks.deliveries.push import Result, run_case
from benchmarks.deliveries.site import TEMPLATES, Site

_USUAL = ("empty", "one", "two", "two", "old form", "signed")


def main() -> None:
    """Run the deliveries and print a summary."""
    options = _options()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not options.resume:
        options.out.unlink(missing_ok=True)
    results = _results(options.out)
    with options.out.open("a") as out:
        for result in _run(options, results):
            results.append(result)
            out.write(json.dumps(result) + "\n")
            out.flush()
            _show(result, len(results))
    sys.exit(_summary(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=200)
    parser.add_argument("--power-cuts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS])
    parser.add_argument("--out", type=Path, default=Path("deliveries.jsonl"))
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def _results(path: Path) -> list[Result]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _run(options: argparse.Namespace, results: list[Result]) -> Iterator[Result]:
    pushes = [r for r in results if r["kind"] in KINDS]
    if sum(bool(r["broke"]) for r in pushes) < options.pushes:
        yield from _break_pushes(options, pushes)
    done = [r for r in results if r["kind"] not in KINDS]
    if len(done) < options.power_cuts:
        from benchmarks.deliveries.power import cut_power

        yield from cut_power(options.power_cuts, options.seed, done)


def _break_pushes(options: argparse.Namespace, results: list[Result]) -> Iterator[Result]:
    """Yield results until the wanted number of pushes was interrupted; some complete unharmed."""
    count, number = sum(bool(r["broke"]) for r in results), len(results)
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-") as folder,
        Site(Path(folder)).run_servers() as s,
    ):
        while count < options.pushes:
            kind = options.kinds[number % len(options.kinds)]
            result = run_case(
                s, kind, KINDS[kind], template_of(kind, number), options.seed + number
            )
            number += 1
            count += bool(result["broke"])
            yield result


def template_of(kind: str, number: int) -> str:
    """Choose the state of the device before a push."""
    if kind == "runtime":
        return ("bare", "brought")[number // len(KINDS) % 2]
    return _USUAL[(number + number // len(KINDS)) % len(_USUAL)]


def _show(result: Result, count: int) -> None:
    print(
        f"{count}: {result['kind']} ({result['template']}, watch {result['watch_s']:g} s): "
        f"{result['broke'] or 'came through'} -> {result['codes']}, {result['outcome']}"
        f"{', went back' if result['went_back'] else ''} ({result['seconds']} s)",
        flush=True,
    )
    for fault in result["faults"]:
        print(f"  FAULT {fault}", flush=True)


def _summary(results: list[Result]) -> int:
    broken = [r for r in results if r["broke"]]
    print(f"{len(broken)} broken deliveries; {len(results) - len(broken)} came through unharmed")
    print("| kind | broken | new | old | nothing | went back | exit codes | faults |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in dict.fromkeys(r["kind"] for r in broken):
        rows = [r for r in broken if r["kind"] == kind]
        ends = Counter(r["outcome"] for r in rows)
        codes = Counter("killed" if c is None else str(c) for r in rows for c in r["codes"])
        print(
            f"| {kind} | {len(rows)} | {ends['new']} | {ends['old']} | {ends['nothing']} "
            f"| {sum(r['went_back'] for r in rows)} "
            f"| {', '.join(f'{code}: {n}' for code, n in sorted(codes.items()))} "
            f"| {sum(bool(r['faults']) for r in rows)} |"
        )
    faults = sum(bool(r["faults"]) for r in results)
    print(f"{faults} faults")
    return 1 if faults else 0


assert set(_USUAL) <= set(TEMPLATES)

if __name__ == "__main__":
    main()
