"""Test of every pass on random graphs like those of exporters, for crashes and wrong results.

    python -m benchmarks.random_graphs --count 2000 [--seed N] [--kinds KIND ...] [--jobs N]
                                       [--quick] [--resume]

Each graph (``tests.exported``) goes through each pass and some chains of passes, as ``edgekit
apply`` runs them, in a child process. A fault is an exception other than a refusal, an output with
a larger error than the pass reported, or a refusal that the graph contradicts. The exit code is 1
if there is a fault. Results are kept as JSON lines; ``--resume`` continues after the last.
Half of the time goes into what ``apply`` says of run times and download sizes: ``--quick`` measures
times briefly, and sizes on one graph in five.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.random_graphs_case import Case, recipes, run_recipe, write
from edgekit.compression.checks import timing
from tests.builders.exported.kinds import KINDS, exported
from tests.builders.random.draft import Impossible

_HOME = Path(__file__).resolve().parents[1]
_SECONDS = 120
_SHOWN = 40
_FIGURES = re.compile(r"\d[\d.,e+-]*")
_Graph = tuple[str, int]


def main() -> None:
    """Run the graphs and print a summary."""
    options = _options()
    if options.worker:
        _work(options.worker, json.loads(sys.stdin.read()), options.quick)
        return
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    if not options.resume:
        out.unlink(missing_ok=True)
    kinds = options.kinds or KINDS
    graphs = [(kinds[n % len(kinds)], options.seed + n) for n in range(options.count)]
    _run(graphs, out, options.jobs, is_quick=options.quick)
    wanted = set(graphs)
    sys.exit(1 if _print_summary([c for c in _read(out) if (c.kind, c.seed) in wanted]) else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first graph")
    parser.add_argument("--kinds", nargs="*", choices=KINDS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="measure times and sizes less often")
    parser.add_argument("--resume", action="store_true", help="keep earlier results")
    parser.add_argument("--out", type=Path, default=Path("build/random_graphs/results.jsonl"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _read(path: Path) -> list[Case]:
    if not path.exists():
        return []
    return [Case(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _run(graphs: Sequence[_Graph], out: Path, jobs: int, *, is_quick: bool) -> None:
    """Start the workers and show their progress."""
    done = {(case.kind, case.seed, case.recipe) for case in _read(out)}
    left = [[*g, name] for g in graphs for name in recipes(g[1]) if (*g, name) not in done]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.random_graphs", "--worker", out]
    command += ["--quick"] * is_quick
    workers = []
    for place in range(jobs):
        part = [case for case in left if graphs.index((case[0], case[1])) % jobs == place]
        worker = subprocess.Popen(command, cwd=_HOME, stdin=subprocess.PIPE, text=True)
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(part))
        worker.stdin.close()
        workers.append(worker)
    started, before = time.monotonic(), len(done)
    while any(worker.poll() is None for worker in workers):
        time.sleep(10)
        known = _read(out)
        fresh = len(known) - before
        if fresh and sys.stderr.isatty():
            minutes = (time.monotonic() - started) / fresh * (len(left) - fresh) / 60
            faults = sum(case.status == "fault" for case in known)
            text = f"{fresh}/{len(left)} cases, {faults} faults, about {minutes:.0f} min left"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _work(out: Path, cases: list[list[Any]], is_quick: bool) -> None:
    """Run cases in child processes; a case that kills its process is a fault."""
    while cases:
        ended, status = _run_child(out, cases, is_quick)
        cases = cases[ended:]
        if status and cases:
            kind, seed, recipe = cases[0]
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            why = f"over {_SECONDS} s" if number == signal.SIGALRM else f"died of signal {number}"
            _add(out, Case(kind=kind, seed=seed, recipe=recipe, status="fault", text=why))
            cases = cases[1:]


def _run_child(out: Path, cases: list[list[Any]], is_quick: bool) -> tuple[int, int]:
    """Run cases in one child process; return the number of completed cases and its status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(out, cases, writing, is_quick)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as marks:
        ended = len(marks.read())
    return ended, os.waitpid(child, 0)[1]


def _child(out: Path, cases: list[list[Any]], writing: int, is_quick: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        graph, folder = None, Path(scratch)
        for kind, seed, recipe in cases:
            signal.alarm(_SECONDS)
            if graph is None or (graph.kind, graph.seed) != (kind, seed):
                for old in folder.iterdir():
                    old.unlink()
                try:
                    graph = exported(kind, seed)
                except Impossible:
                    os.write(writing, b".")
                    continue
                write(graph, folder)
            with _measuring(is_brief=is_quick, without_sizes=is_quick and seed % 5 != 0):
                _add(out, run_recipe(graph, recipe, recipes(seed)[recipe], folder))
            os.write(writing, b".")


@contextmanager
def _measuring(*, is_brief: bool, without_sizes: bool) -> Iterator[None]:
    """Let ``apply`` measure times briefly, and give no download sizes."""
    with ExitStack() as stack:
        if is_brief:
            stack.enter_context(patch.object(timing, "_SECONDS", 0.0))
        if without_sizes:
            stack.enter_context(patch("edgekit.pipeline.apply.get_transfer_bytes", return_value=0))
        yield


def _add(out: Path, case: Case) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(case)) + "\n")


def _print_summary(found: Sequence[Case]) -> bool:
    """Print counts, refusals grouped by text, and faults; return whether there is a fault."""
    print(f"\n{len({(c.kind, c.seed) for c in found})} graphs, {len(found)} cases:", end=" ")
    print(", ".join(f"{n} {status}" for status, n in Counter(c.status for c in found).items()))
    for status in ("refused", "fault"):
        print(f"\n{status}:")
        for text, cases in _group_by_text([c for c in found if c.status == status])[:_SHOWN]:
            kinds = ", ".join(sorted({c.kind for c in cases}))
            print(f"{len(cases):5} {text}\n      ({kinds}; {cases[0].kind} {cases[0].seed})")
    return any(case.status == "fault" for case in found)


def _group_by_text(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        key = _FIGURES.sub("#", case.text)
        groups.setdefault(key, []).append(case)
    return sorted(groups.items(), key=lambda pair: -len(pair[1]))


if __name__ == "__main__":
    main()
