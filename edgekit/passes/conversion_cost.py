"""Notes on a converted model that is larger or slower than its source."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.errors import UserError
from edgekit.graphs.lite_file import lite_census
from edgekit.graphs.outputs import Arrays
from edgekit.graphs.reading import read_model
from edgekit.graphs.stored import census
from edgekit.model import Format, Model
from edgekit.passes import Work
from edgekit.passes.exactness import accepted_feed
from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import import_runtime

# Names, shapes and options differ by that much from format to format.
_LARGER, _LEAST_BYTES = 1.05, 4096
# Ratios below this are noise on a busy machine.
_SLOWER = 1.15
_ROUNDS, _LEAST_ROUNDS, _SECONDS = 15, 5, 0.8
# Two models of this size at once, and runs of that length, are no cheap look any more.
_MOST_BYTES, _MOST_RUN_SECONDS = 256 << 20, 2.0
_RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime", "tflite": "litert"}


def note_cost(model: Model, made: Path, work: Work) -> None:
    """Tell the user where a file made of a model is larger, or runs slower on this machine.

    Args:
        model: the source.
        made: the new file.
        work: of the pass.
    """
    size = made.stat().st_size
    if size > _LARGER * model.bytes + _LEAST_BYTES:
        times = size / model.bytes
        work.note(f"the file is {times:.2f} times as large as its source: {_growth(model, made)}")
    if max(size, model.bytes) > _MOST_BYTES:
        return
    work.progress("timing", 0, 0)
    try:
        pair = _milliseconds(model, read_model(made), work)
    except (AgentError, UserError):
        return  # what doesn't run is told by the comparison of the outputs
    if pair is None:
        return
    before, after = pair
    if after > _SLOWER * before:
        work.note(
            f"on this machine it takes {after / before:.2f} times as long as its source: "
            f"{after:.3g} ms instead of {before:.3g} ms, one thread"
        )


def _growth(model: Model, made: Path) -> str:
    """Tell of which type a file stores most more than its source."""
    new = lite_census(made) if model.format == "onnx" else census(made)
    old = census(model.path) if model.format == "onnx" else lite_census(model.path)
    more = {dtype: size - old.bytes_of.get(dtype, 0) for dtype, size in new.bytes_of.items()}
    dtype = max(more, key=lambda each: more[each], default=None)
    if old.bytes_of.get("float16", 0) > new.bytes_of.get("float16", 0):
        return "its 16-bit weights became 32-bit ones, which the pass float16 stores in 16 again"
    if dtype is None or more[dtype] <= 0:
        return "the graph itself takes more"
    return (
        f"it stores {new.bytes_of[dtype]:,} bytes of {dtype} instead of "
        f"{old.bytes_of.get(dtype, 0):,}"
    )


def _milliseconds(model: Model, made: Model, work: Work) -> tuple[float, float] | None:
    """Median processor time of one inference of each, measured in turn; None where none runs."""
    feed = accepted_feed(model, made, work.calibration, seed=work.seed)
    if feed is None:
        return None
    runs = [_runner(each, feed) for each in (model, made)]
    first = [_seconds(run) for run in runs]
    if max(first) > _MOST_RUN_SECONDS:
        return None
    times: list[list[float]] = [[], []]
    started = time.monotonic()
    while len(times[0]) < _LEAST_ROUNDS or (
        len(times[0]) < _ROUNDS and time.monotonic() - started < _SECONDS
    ):
        for run, taken in zip(runs, times, strict=True):
            taken.append(_seconds(run))
    before, after = (1e3 * float(np.median(taken)) for taken in times)
    return (before, after) if before > 0 else None


def _runner(model: Model, feed: Arrays) -> Callable[[], object]:
    loaded = import_runtime(_RUNTIMES[model.format])(str(model.path), 1)
    return lambda: loaded.run(feed)


def _seconds(run: Callable[[], object]) -> float:
    """Time of the calling thread, in which both runtimes compute: others' load doesn't count."""
    started = time.thread_time()
    run()
    return time.thread_time() - started
