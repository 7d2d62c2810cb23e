"""Conformance of the conversion to TFLite, by ONNX's own backend tests.

python -m benchmarks.conformance [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import onnx

from benchmarks.conformance_case import CLAIMED, Verdict, judge_case, load_cases, operator_of

_HOME = Path(__file__).resolve().parents[1]
DOCUMENT = _HOME / "docs" / "operators.md"
_CORES = 2
_SECONDS = 60
_MARK = "verdict "
_NUMBERS = re.compile(r"(differs|the runtime):? .*")
_ABORTS = "the runtime aborts"
_PASSED = ("passed", "stored")


def judge_all(names: Sequence[str]) -> list[Verdict]:
    """Run tests in worker processes; a runtime that aborts fails only one test.

    Args:
        names: Names of tests, as in ``load_cases``.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.conformance", "--worker"]
    workers = []
    for place in range(_CORES):
        process = subprocess.Popen(
            command, cwd=_HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        workers.append((process, json.dumps(names[place::_CORES])))
    with ThreadPoolExecutor() as threads:
        said = list(threads.map(lambda worker: worker[0].communicate(worker[1])[0], workers))
    lines = [line for text in said for line in text.splitlines() if line.startswith(_MARK)]
    found = [Verdict(**json.loads(line.removeprefix(_MARK))) for line in lines]
    return sorted(found, key=lambda verdict: verdict.name)


def _work() -> None:
    """Judge the tests named on stdin, in child processes that may die."""
    names = json.loads(sys.stdin.read())
    load_cases()
    while names:
        lines = _run_one_process(names)
        if len(lines) < len(names):
            name = names[len(lines)]
            lost = Verdict(name=name, operator=operator_of(name), status="failed", why=_ABORTS)
            lines.append(json.dumps(asdict(lost)))
        names = names[len(lines) :]
        for line in lines:
            print(f"{_MARK}{line}", flush=True)


def _run_one_process(names: list[str]) -> list[str]:
    """Return the verdicts, one per line, of a process until it is done or dies."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        for name in names:
            signal.alarm(_SECONDS)
            os.write(writing, f"{json.dumps(asdict(judge_case(name)))}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        found = lines.read().splitlines()
    os.wait()
    return found


def format_document(found: Sequence[Verdict]) -> str:
    """Format docs/operators.md."""
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in found:
        groups[verdict.operator].append(verdict)
    models = groups.pop("", [])
    passed = sum(verdict.status in _PASSED for verdict in found)
    names = sorted({*groups, *_list_operators(), *CLAIMED}, key=str.lower)
    return "\n".join(
        [
            "# ONNX operators in TFLite",
            "",
            "Written by `python -m benchmarks.conformance --write`; do not edit.",
            "",
            f"Every test that onnx {version('onnx')} brings for its operators is brought to TFLite"
            f" and run with ai-edge-litert {version('ai-edge-litert')}; the tests' own tolerances"
            f" hold. {passed} of {len(found)} pass.",
            "Tests feed what models store (sizes, axes, pads): where a test passes only with those"
            ' inputs stored in the model, it is counted under "stored".',
            'An operator is claimed where it has a rule; "by others" are those that are written'
            " out as ONNX defines them, by other operators.",
            "",
            "| Operator | Claimed | Passed | Of those stored | Not passed, and why |",
            "|---|---|---|---|---|",
            *(_format_line(name, groups[name]) for name in names),
            "",
            "## Whole models",
            "",
            f"{sum(v.status in _PASSED for v in models)} of {len(models)} pass.",
            *(f"- {v.name}: {_format_reason(v)}" for v in models if v.status not in _PASSED),
            "",
            "## Tests that are not passed",
            "",
            *(line for name in names for line in _format_names(name, groups[name])),
            "",
        ]
    )


def _list_operators() -> set[str]:
    """Return the operators of the standard domain that are not deprecated."""
    schemas = onnx.defs.get_all_schemas()
    return {s.name for s in schemas if s.domain == "" and not s.deprecated}


def _format_line(name: str, found: Sequence[Verdict]) -> str:
    count = Counter(verdict.status for verdict in found)
    passed = count["passed"] + count["stored"]
    reasons = Counter(_format_reason(v) for v in found if v.status not in _PASSED)
    why = "; ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    claim = "yes" if name in CLAIMED else "by others" if passed else "no"
    cells = [name, claim, f"{passed} of {len(found)}"]
    return f"| {' | '.join([*cells, str(count['stored'] or ''), why])} |"


def _format_reason(verdict: Verdict) -> str:
    """Return why a test does not pass, without details that differ between machines."""
    if verdict.status != "failed":
        return verdict.why
    return f"FAILS ({re.sub(_NUMBERS, lambda found: found[1], verdict.why)})"


def _format_names(name: str, found: Sequence[Verdict]) -> list[str]:
    if name not in CLAIMED:
        return []
    left = [verdict.name for verdict in found if verdict.status not in _PASSED]
    return [f"- {name}: {', '.join(left)}"] if left else []


def main() -> None:
    """Run every test; with ``--write``, write docs/operators.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/operators.md")
    parser.add_argument("--only", default="", help="tests whose names or operators hold this")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _work()
        return
    names = [n for n in load_cases() if given.only in n]
    found = judge_all(names)
    for verdict in found:
        if verdict.status == "failed" or (given.only and verdict.status == "refused"):
            print(f"{verdict.status} {verdict.name}: {verdict.why}")
    print(dict(Counter(verdict.status for verdict in found)))
    if given.write:
        DOCUMENT.write_text(format_document(found))


if __name__ == "__main__":
    main()
