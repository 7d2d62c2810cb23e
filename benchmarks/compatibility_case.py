"""Run and independent measurement of one pass on one model.

The measurement shares no code with the checks of the passes: the original runs in onnxruntime
without optimization, on held-out samples, and each output is compared separately.
"""

from __future__ import annotations

import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks.corpus_inputs import Arrays, session

# Limits of CPU time and memory for a pass; on a busy machine it may take several times as long.
SECONDS, BYTES = 900, 10 << 30
_WAIT_SECONDS = 6 * SECONDS
_ROUNDS, _ROUND_SECONDS, _LEAST_RUNS = 7, 0.12, 3

Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True, kw_only=True)
class Completed:
    """Exit code, output and run time of a completed command."""

    code: int  # 124 if a time limit was exceeded
    out: str
    err: str
    seconds: float


def edgekit(*words: str) -> Completed:
    """Run edgekit's command line within the limits."""
    return _run_command([sys.executable, "-m", "edgekit", *words])


def _run_command(command: Sequence[str]) -> Completed:
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
            preexec_fn=_set_limits,
        )
    except subprocess.TimeoutExpired:
        return Completed(code=124, out="", err=f"over {_WAIT_SECONDS} s", seconds=_WAIT_SECONDS)
    seconds = time.monotonic() - started
    if done.returncode == -signal.SIGXCPU:
        return Completed(code=124, out="", err=f"over {SECONDS} s of CPU time", seconds=seconds)
    return Completed(code=done.returncode, out=done.stdout, err=done.stderr, seconds=seconds)


def _set_limits() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 60))
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))


@dataclass(frozen=True, kw_only=True)
class FileComparison:
    """Error and time ratio of a new file against its source.

    ``error`` is the RMS difference of the worst output over the RMS of that output; for an integer
    output, the share of entries that differ. ``time_ratio`` is new over old.
    """

    output: str
    error: float
    time_ratio: float


def measure(
    before: Path,
    after: Path,
    samples: Path,
    axes: Mapping[str, int],
    states: Mapping[str, str],
) -> FileComparison:
    """Compare two files in a new process.

    Args:
        before: The original.
        after: The new file.
        samples: File with one array per input, samples along the first axis.
        axes: Batch axes of inputs other than the first axis; -1 for none.
        states: Outputs to feed back, by input; used if no array is given.

    Raises:
        RuntimeError: A runtime refuses one of the files, or crashes.
    """
    request = json.dumps([str(before), str(after), str(samples), dict(axes), dict(states)])
    done = _run_command([sys.executable, "-m", "benchmarks.compatibility_case", request])
    if done.code:
        last = done.err.strip().splitlines()[-1:] or [f"exit {done.code}"]
        raise RuntimeError(f"cannot be measured: {last[0]}")
    return FileComparison(**json.loads(done.out))


def _measure(
    before: Path,
    after: Path,
    samples: Path,
    axes: Mapping[str, int],
    states: Mapping[str, str],
) -> FileComparison:
    feeds = list(_feeds(samples, axes))
    exact, made = load_runner(before, states, optimized=False), load_runner(after, states)
    pairs = [(exact(feed), made(feed)) for feed in feeds]
    both = [({n: old[n] for n in old if n in new}, new) for old, new in pairs]
    errors = {name: error for name, (error, _) in output_errors(both).items()}
    worst = max(errors, key=lambda name: errors[name])
    ratio = _time_ratio(load_runner(before, states), made, feeds[0])
    return FileComparison(output=worst, error=errors[worst], time_ratio=ratio)


def _feeds(samples: Path, axes: Mapping[str, int]) -> Sequence[Arrays]:
    """Build one feed for each sample; an input with axis -1 gets no batch axis."""
    with np.load(samples) as opened:
        arrays = {name: opened[name] for name in opened.files}
    count = len(next(iter(arrays.values())))
    return [{n: _row(a[row], axes.get(n, 0)) for n, a in arrays.items()} for row in range(count)]


def _row(value: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    return np.asarray(value) if axis < 0 else np.expand_dims(value, axis)


def output_errors(pairs: Sequence[tuple[Arrays, Arrays]]) -> dict[str, tuple[float, bool]]:
    """Compute the error of each output over all samples, and whether the output is float."""
    errors = {}
    for name, value in pairs[0][0].items():
        error = _error([(old[name], new[name]) for old, new in pairs])
        errors[name] = (error, value.dtype.kind == "f")
    return errors


def _error(pairs: Sequence[tuple[NDArray[np.generic], NDArray[np.generic]]]) -> float:
    old, new = (np.concatenate([pair[n].ravel() for pair in pairs]) for n in (0, 1))
    if old.shape != new.shape:
        return float("inf")
    if old.dtype.kind != "f":
        return float(np.mean(old != new))
    wide, narrow = old.astype(np.float64), new.astype(np.float64)
    kept = np.isfinite(wide)
    if not np.isfinite(narrow[kept]).all():
        return float("inf")
    power = float(np.square(wide[kept]).mean())
    apart = float(np.square(wide[kept] - narrow[kept]).mean())
    return float(np.sqrt(apart / power)) if power else float(np.sqrt(apart))


def _time_ratio(before: Run, after: Run, feed: Arrays) -> float:
    """Measure the ratio of median times, after over before, in alternating rounds.

    Both runtimes compute in this thread, and its CPU time is measured, so that other load on the
    machine has little effect.
    """
    times = [(_median_seconds(before, feed), _median_seconds(after, feed)) for _ in range(_ROUNDS)]
    one, other = (statistics.median(each) for each in zip(*times, strict=True))
    return other / one


def _median_seconds(run: Run, feed: Arrays) -> float:
    run(feed)
    taken: list[float] = []
    until = time.perf_counter() + _ROUND_SECONDS
    while time.perf_counter() < until or len(taken) < _LEAST_RUNS:
        start = time.thread_time()
        run(feed)
        taken.append(time.thread_time() - start)
    return statistics.median(taken)


def load_runner(
    path: Path, states: Mapping[str, str] | None = None, *, optimized: bool = True
) -> Run:
    """Load a model file in the runtime of its format as a function of a feed, on one thread.

    States missing in a feed are taken from the previous run, and are zeros at first.
    """
    if path.suffix == ".tflite":
        return _lite_runner(path, states or {})
    made = session(path, optimized=optimized)
    names = [output.name for output in made.get_outputs()]
    inputs = {each.name: each.shape for each in made.get_inputs()}

    def run(feed: Arrays) -> Arrays:
        return dict(zip(names, made.run(names, _rename_feed(feed, list(inputs))), strict=True))

    return _feed_back(run, inputs, states or {})


def _feed_back(run: Run, inputs: Mapping[str, Sequence[Any]], states: Mapping[str, str]) -> Run:
    """Wrap a runner so that missing states are fed from the previous run."""
    carried: Arrays = {
        name: np.zeros([d if isinstance(d, int) else 1 for d in inputs[name]], np.float32)
        for name in states
        if name in inputs
    }

    def run_on(feed: Arrays) -> Arrays:
        found = run(carried | feed)
        carried.update({name: found[states[name]] for name in carried})
        return found

    return run_on if carried else run


def _lite_runner(path: Path, states: Mapping[str, str]) -> Run:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    if not interpreter.get_signature_list():
        return _unsigned_runner(interpreter)
    signature = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
    inputs, outputs = signature.get_input_details(), signature.get_output_details()

    def run(feed: Arrays) -> Arrays:
        given = _rename_feed(feed, list(inputs))
        found = signature(**{n: _quantize_input(v, inputs[n]) for n, v in given.items()})
        return {n: _dequantize_output(v, outputs[n]) for n, v in found.items()}

    shapes = {name: [int(size) for size in detail["shape"]] for name, detail in inputs.items()}
    return _feed_back(run, shapes, states)


def _quantize_input(value: NDArray[np.generic], detail: Mapping[str, Any]) -> NDArray[np.generic]:
    """Quantize floats for a quantized input."""
    scale, zero = detail["quantization"]
    if not scale or value.dtype.kind != "f":
        return value
    kind = np.iinfo(detail["dtype"])
    return np.clip(np.rint(value / scale) + zero, kind.min, kind.max).astype(detail["dtype"])


def _dequantize_output(
    value: NDArray[np.generic], detail: Mapping[str, Any]
) -> NDArray[np.generic]:
    scale, zero = detail["quantization"]
    return ((value.astype(np.float32) - zero) * scale).astype(np.float32) if scale else value


def _unsigned_runner(interpreter: Interpreter) -> Run:
    interpreter.allocate_tensors()
    places = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}

    def run(feed: Arrays) -> Arrays:
        for name, value in _rename_feed(feed, list(places)).items():
            interpreter.set_tensor(places[name], value)
        interpreter.invoke()
        details = interpreter.get_output_details()
        return {d["name"]: interpreter.get_tensor(d["index"]) for d in details}

    return run


def _rename_feed(feed: Arrays, inputs: Sequence[str]) -> Arrays:
    """Select the inputs of this file from a feed; a single input may have any name."""
    if len(inputs) == 1 and len(feed) == 1:
        return {inputs[0]: next(iter(feed.values()))}
    return {name: feed[name] for name in inputs}


if __name__ == "__main__":
    one, other, data, batch_axes, fed_back = json.loads(sys.argv[1])
    found = _measure(Path(one), Path(other), Path(data), batch_axes, fed_back)
    print(json.dumps(found.__dict__))
