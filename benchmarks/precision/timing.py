"""Timing of several ONNX files in one process, in turn, on the same samples.

    python timing.py DATA THREADS SECONDS NAME=FILE ...

DATA is a folder with one .npy per model input. Prints one JSON object: ms by name; all but the
first are derived from the median ratio to it within a turn, so that drift of the machine affects
both.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

_BURST_S = 0.02


def open_session(path: str, threads: int) -> ort.InferenceSession:
    """Open an onnxruntime session as an application would."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def burst(session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> list[float]:
    """Measure the times in ms of consecutive runs, without those before the caches are warm."""
    session.run(None, feed)
    times, begun = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < _BURST_S:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Time all files and print the result."""
    data, threads, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    files = dict(argument.split("=", 1) for argument in sys.argv[4:])
    feed = {file.stem: np.load(file, mmap_mode="r")[:1].copy() for file in data.glob("*.npy")}
    sessions = {name: open_session(path, threads) for name, path in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    order, begun = list(sessions), time.perf_counter()
    while time.perf_counter() - begun < seconds * len(files):
        for name in order:
            times[name].append(statistics.median(burst(sessions[name], feed)))
        order = [*order[1:], order[0]]
    first = next(iter(files))
    quiet = min(times[first])
    ratios = {
        name: statistics.median(t / f for t, f in zip(taken, times[first], strict=True))
        for name, taken in times.items()
    }
    print(json.dumps({name: quiet * ratio for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
