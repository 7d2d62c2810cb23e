"""Overhead of the sketches of a session: predictions with and without them, in turn.

    python benchmarks/sessions/overhead.py [--rounds 400] [--inference-ms 5]

The model multiplies matrices until one prediction takes about the given time. Times are those of
the processor, so that other programs do not count. The overhead is the difference of the medians,
with that of two sessions without sketches as its noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from edgekit_agent import Session
from tests.builders.apps.model_folders import write_model_folder

_WIDTH, _SIDE = 96, 64


def measure_overhead(folder: Path, *, rounds: int, inference_ms: float) -> dict[str, float]:
    """Measure the median time of predictions of sessions with and without sketches, in ms."""
    steps = _choose_steps(folder, inference_ms)
    made = _write_model(folder / "model", steps)
    sessions = {
        "without": Session(str(made), sketches=False),
        "with": Session(str(made)),
        "again_without": Session(str(made), sketches=False),
    }
    samples = np.random.default_rng(0).normal(0, 1, (16, _SIDE, _SIDE, 3)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 20):
        sample = samples[number % len(samples)]
        names = list(sessions)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            sessions[name].predict(sample)
            if number >= 20:
                times[name].append(1e3 * (time.process_time() - start))
    medians = {name: statistics.median(each) for name, each in times.items()}
    added = medians["with"] - (medians["without"] + medians["again_without"]) / 2
    return {
        **{f"{name}_ms": value for name, value in medians.items()},
        "added_ms": added,
        "noise_ms": abs(medians["without"] - medians["again_without"]),
        "share": added / medians["without"],
        "share_of_5_ms": added / 5,
    }


def _choose_steps(folder: Path, inference_ms: float) -> int:
    """Return the number of products that take about a time."""
    few = 20
    session = Session(str(_write_model(folder / "trial", few)), sketches=False)
    sample = np.zeros((_SIDE, _SIDE, 3), np.float32)
    times = []
    for _ in range(20):
        start = time.process_time()
        session.predict(sample)
        times.append(1e3 * (time.process_time() - start))
    return max(1, round(few * inference_ms / min(times)))


def _write_model(folder: Path, steps: int) -> Path:
    """Write a model of many products of matrices, with an input of images and ten classes."""
    nodes = " ".join(f"h{n + 1} = MatMul(h{n}, w)" for n in range(steps))
    weights = np.random.default_rng(1).normal(0, 1 / np.sqrt(_WIDTH), (_WIDTH, _WIDTH))
    listed = ", ".join(f"{value:.5f}" for value in weights.ravel())
    rows = _SIDE * _SIDE * 3 // _WIDTH
    text = (
        f"g (float[N,{_SIDE},{_SIDE},3] x) => (float[N,{_WIDTH}] y) "
        f"<float[{_WIDTH},{_WIDTH}] w = {{{listed}}}, int64[3] shape = {{-1,{rows},{_WIDTH}}}> "
        f"{{ h0 = Reshape(x, shape) {nodes} y = ReduceMean<axes = [1], keepdims = 0>(h{steps}) }}"
    )
    answer = {"kind": "class", "logits": True}
    return write_model_folder(folder, text, opset=12, answer=answer)


def main() -> None:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--inference-ms", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure_overhead(
            Path(scratch), rounds=options.rounds, inference_ms=options.inference_ms
        )
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


if __name__ == "__main__":
    main()
