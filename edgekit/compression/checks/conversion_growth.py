"""Checks of a converted file against its source: size, speed and integer weights."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgekit.compression.checks.exactness import find_accepted_feed
from edgekit.compression.checks.timing import measure_slowdown, measure_thread_seconds
from edgekit.compression.fixed_sizes import has_fitting_samples
from edgekit.compression.pass_specs import Work
from edgekit.config.profile import get_runtime
from edgekit.conversion.model_facts import list_carried_states, read_storage_stats
from edgekit.conversion.open_model import read_model
from edgekit.errors import PassRefused, UserError
from edgekit.model import Model
from edgekit.onnx_graph.operators import INTEGER_TYPES
from edgekit.onnx_graph.runs.model_outputs import Arrays
from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import import_runtime

# Growth that names, shapes and options explain; larger files are noted.
_LARGER, _LEAST_BYTES = 1.05, 4096
# A call of onnxruntime and one of LiteRT differ by some microseconds, whatever the model.
_LEAST_EXTRA = 1e-5
_TRIES = 9
# Models above this size are not timed: loading both takes too much memory and time.
_MOST_BYTES = 256 << 20
# A float takes four times the bytes of an 8-bit integer.
_WIDENED = 2.0


def check_integers(model: Model, made: Path) -> None:
    """Refuse a converted file in which half of the integer weights or more became floats.

    Raises:
        PassRefused: the integers became floats.
    """
    old, new = read_storage_stats(model.path), read_storage_stats(made)
    integers = sum(old.bytes_of.get(dtype, 0) for dtype in INTEGER_TYPES)
    floats = new.bytes_of.get("float32", 0) - old.bytes_of.get("float32", 0)
    if integers >= _LEAST_BYTES and floats >= _WIDENED * integers:
        raise PassRefused(
            "the integer weights cannot be stored in the other format; with float weights the "
            f"file has {new.file_bytes:,} bytes instead of {old.file_bytes:,}",
            hint="convert the float model, then quantize the result",
        )


def note_size(model: Model, made: Path, work: Work) -> None:
    """Note to the user that a converted file is larger than its source, and why.

    Args:
        model: the source.
        made: the converted file.
        work: work of the pass.
    """
    size = made.stat().st_size
    if size > _LARGER * model.bytes + _LEAST_BYTES:
        times = size / model.bytes
        work.note(
            f"the file is {times:.2f} times as large as its source: {_explain_growth(model, made)}"
        )


def _explain_growth(model: Model, made: Path) -> str:
    """Describe the largest growth between source and file: a data type, or the graph."""
    old, new = read_storage_stats(model.path), read_storage_stats(made)
    more = {dtype: size - old.bytes_of.get(dtype, 0) for dtype, size in new.bytes_of.items()}
    dtype = max(more, key=lambda each: more[each], default=None)
    if old.bytes_of.get("float16", 0) > new.bytes_of.get("float16", 0):
        return "its 16-bit weights became 32-bit; the pass float16 stores them in 16 bits again"
    graphs = [stored.file_bytes - sum(stored.bytes_of.values()) for stored in (old, new)]
    if dtype is None or more[dtype] < graphs[1] - graphs[0]:
        return (
            f"its graph takes {graphs[1]:,} bytes instead of {graphs[0]:,}, with {new.nodes} "
            f"operators instead of {old.nodes}"
        )
    return (
        f"it stores {new.bytes_of[dtype]:,} bytes of {dtype} instead of "
        f"{old.bytes_of.get(dtype, 0):,}"
    )


def note_time(model: Model, made: Path, work: Work) -> None:
    """Note to the user that a converted file is slower than its source on this machine.

    A model that fails on the first sample is reported by the comparison of the outputs instead.
    """
    if max(made.stat().st_size, model.bytes) > _MOST_BYTES:
        return
    work.progress("timing", 0, 0)
    after = read_model(made)
    samples = work.calibration if has_fitting_samples(after, work.calibration) else None
    with contextlib.suppress(AgentError, UserError):
        feed = find_accepted_feed(model, after, samples, seed=work.seed, feeding=work.feeding)
        if feed is None:
            return
        runs = [_build_runner(each, feed) for each in (model, after)]
        ratio = measure_slowdown(runs[0], runs[1], partial(work.progress, "timing"))
        if ratio <= 1:
            return
        seconds = statistics.median(measure_thread_seconds(runs[0]) for _ in range(_TRIES))
        if (ratio - 1) * seconds >= _LEAST_EXTRA:
            work.note(
                f"on this machine the file takes {ratio:.2f} times as long as its source (one "
                "thread)"
            )


def _build_runner(model: Model, feed: Arrays) -> Callable[[], object]:
    run = import_runtime(get_runtime(model))(str(model.path), 1).run
    names = {spec.name for spec in model.signature.inputs}
    held = {state.input: state.initial for state in list_carried_states(model)}
    given = held | {name: value for name, value in feed.items() if name in names}
    return lambda: run(given)
