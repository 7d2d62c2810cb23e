"""Fuzzing of edgekit with damaged and hostile inputs under limits of time and memory.

    python -m benchmarks.fuzz [--count 3000] [--commands 200] [--seed N] [--kinds KIND ...]
                              [--out FILE] [--resume]

Models, samples, settings, manifests, bundles and answers of devices are varied from small valid
ones. Each variant is processed in a worker process with limits; ``--commands`` of them also go
through the command line. A fault is an exception other than an expected failure, a message of more
than one line, a process that dies, more than 20 s of CPU time, or more than 1 GiB of memory. The
exit code is 1 if there is a fault. Results are kept as JSON lines; ``--resume`` continues after the
last. ``--show KIND SEED FOLDER`` writes one input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.case import KINDS, run_case, write_bases, write_variant

HOME = Path(__file__).resolve().parents[2]
MOST_CPU_S = 20.0
MOST_BYTES = 1 << 30
# Limit of wall time; a busy machine may take far longer than its CPU time.
PATIENCE_S = 240.0
_FIGURES = re.compile(r"\d[\d.,e+-]*|0x[0-9a-f]+|'[^']*'|/\S+")
Result = dict[str, Any]


def main() -> None:
    """Run the inputs and print a summary."""
    options = _options()
    if options.worker:
        _work(options.worker)
        return
    if options.show:
        kind, seed, folder = options.show
        bases = Path(tempfile.mkdtemp()) / "bases"
        write_bases(bases)
        Path(folder).mkdir(parents=True, exist_ok=True)
        print(write_variant(kind, int(seed), bases, Path(folder)))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not options.resume:
        options.out.unlink(missing_ok=True)
    results = _results(options.out)
    done = {(r["way"], r["kind"], r["seed"]) for r in results}
    kinds = options.kinds
    cases = [(kinds[n % len(kinds)], options.seed + n) for n in range(options.count)]
    by_command = _pick([n for n, (kind, _) in enumerate(cases) if kind != "answers"], options)
    with tempfile.TemporaryDirectory() as folder, options.out.open("a") as out:
        bases = Path(folder) / "bases"
        write_bases(bases)
        worker = _Worker(bases)
        for number, (kind, seed) in enumerate(cases):
            ways = ["in process"]
            if number in by_command:
                ways.append("command")
            for way in ways:
                if (way, kind, seed) in done:
                    continue
                took = worker.run(kind, seed) if way == "in process" else _run(kind, seed, bases)
                result = {"way": way, "kind": kind, "seed": seed, **took}
                results.append(result)
                out.write(json.dumps(result) + "\n")
                out.flush()
                if result["fault"]:
                    print(f"{kind} {seed} ({way}): {result['fault']}", flush=True)
        worker.stop()
    sys.exit(_summary(results))


def _pick(numbers: list[int], options: argparse.Namespace) -> set[int]:
    """Pick the inputs that go through the command line, of all kinds."""
    # Every n-th input would be of one kind if n is a multiple of the number of kinds.
    return set(Random(options.seed).sample(numbers, min(options.commands, len(numbers))))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--out", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--show", nargs=3, metavar=("KIND", "SEED", "FOLDER"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _results(path: Path) -> list[Result]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _summary(results: list[Result]) -> int:
    for way in ("in process", "command"):
        found = [r for r in results if r["way"] == way]
        if not found:
            continue
        cpu, peak = max(r["cpu_s"] for r in found), max(r["peak_mib"] for r in found)
        taken = sum(r["said"] == "taken" for r in found)
        print(f"{way}: {len(found)} inputs, {taken} taken, at most {cpu:.1f} s and {peak:.0f} MiB")
        counts = sorted(Counter(r["kind"] for r in found).items())
        print("  " + ", ".join(f"{kind} {count}" for kind, count in counts))
    faults = Counter(_FIGURES.sub("*", r["fault"]) for r in results if r["fault"])
    for fault, count in faults.most_common():
        print(f"FAULT {count} x {fault}")
    print(f"{sum(faults.values())} faults")
    return 1 if faults else 0


class _Worker:
    """Child process that takes one input after the other and is replaced when it dies."""

    def __init__(self, bases: Path) -> None:
        self._bases = bases
        self._process: subprocess.Popen[str] | None = None

    def run(self, kind: str, seed: int) -> Result:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([kind, seed]) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(PATIENCE_S) else None
        if line:
            result: Result = json.loads(line)
            return result
        why = "no answer in time" if line is None else f"the process died: {self._end()}"
        self.stop()
        return {"said": "", "cpu_s": 0.0, "peak_mib": 0.0, "fault": why}

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzz", "--worker", str(self._bases)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=HOME,
        )
        return self._process

    def _end(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit {code}"


def _work(bases: Path) -> None:
    """Run the inputs named on stdin in this process and print one line for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ["EDGEKIT_CACHE"] = str(bases.parent / "cache")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run_case("onnx", 0, bases, Path(tempfile.mkdtemp(dir=bases.parent)))  # imports
    resource.setrlimit(resource.RLIMIT_DATA, (4 * MOST_BYTES, 4 * MOST_BYTES))
    for line in sys.stdin:
        kind, seed = json.loads(line)
        answers.write(json.dumps(_measure(kind, seed, bases)) + "\n")
        answers.flush()


def _measure(kind: str, seed: int, bases: Path) -> Result:
    scratch = Path(tempfile.mkdtemp(dir=bases.parent))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    started, fault, said = _cpu_s(), "", ""
    try:
        said = run_case(kind, seed, bases, scratch)
    except MemoryError:
        fault = "out of memory"
    except BaseException as error:  # noqa: BLE001 - each one is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).strip().partition("\n")[0][:200]
        fault = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {text}"
    shutil.rmtree(scratch, ignore_errors=True)
    return _judge(said, _cpu_s() - started, _peak_bytes(), fault)


def _judge(said: str, cpu_s: float, peak_bytes: int, fault: str) -> Result:
    if not fault and cpu_s > MOST_CPU_S:
        fault = f"{cpu_s:.0f} s of CPU time"
    if not fault and peak_bytes > MOST_BYTES:
        fault = f"{peak_bytes >> 20} MiB of memory"
    return {
        "said": said[:300],
        "cpu_s": round(cpu_s, 2),
        "peak_mib": peak_bytes >> 20,
        "fault": fault,
    }


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match.group(1)) << 10 if match else 0


def _run(kind: str, seed: int, bases: Path) -> Result:
    """Run the edgekit command that reads this input."""
    scratch = Path(tempfile.mkdtemp(dir=bases.parent))
    path = write_variant(kind, seed, bases, scratch)
    command = [sys.executable, "-m", "edgekit", *_arguments(kind, seed, path)]
    env = {
        **os.environ,
        "EDGEKIT_CACHE": str(bases.parent / "cache"),
        "EDGEKIT_HOME": str(scratch / "device"),
        "PYTHONPATH": f"{HOME}:{HOME / 'targets'}",
    }
    errors = scratch / "errors"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=file, env=env, cwd=scratch
        )
        until, end, code, usage = time.monotonic() + PATIENCE_S, 0, 0, None
        while not end and time.monotonic() < until:
            end, code, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.02)
        if not end:
            process.kill()
            _, code, usage = os.wait4(process.pid, 0)
    assert usage is not None
    process.returncode = os.waitstatus_to_exitcode(code)
    said = errors.read_text(errors="replace")
    shutil.rmtree(scratch, ignore_errors=True)
    fault = "" if end else "no end in time"
    if not fault and "Traceback" in said:
        fault = f"traceback: {said.strip().splitlines()[-1][:200]}"
    if not fault and process.returncode not in (0, 2, 3, 4):
        fault = f"exit {process.returncode}: {said.strip()[-200:]}"
    lines = [line for line in said.splitlines() if line.startswith("edgekit: ")]
    told = lines[-1] if lines else "taken"
    return _judge(told, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, fault)


def _arguments(kind: str, seed: int, path: Path) -> list[str]:
    match kind:
        case "npz":
            model = path.parent / "m.onnx"
            model.write_bytes((path.parent.parent / "bases/dense.onnx").read_bytes())
            out = str(path.parent / "out.onnx")
            return ["apply", "quantize-static", str(model), "--data", str(path), "-o", out]
        case "toml" if path.name == "recipe.toml":
            return ["build", str(path.parent / "m.onnx"), "--recipe", str(path)]
        case "toml" if path.name == "d.toml":
            return ["inspect", str(path.parent / "m.onnx"), "--device", str(path)]
        case "toml":
            return ["inspect", "-C", str(path.parent), str(path.parent / "m.onnx")]
        case "manifest" | "bundle":
            return ["push", str(path), "local"]
        case _ if seed % 2:
            return ["inspect", str(path), "--device", "tablet"]
    passes = {"onnx": "clean", "tflite": "to-onnx"}
    return ["apply", passes[kind], str(path), "-o", str(path.parent / "out.onnx")]


if __name__ == "__main__":
    main()
