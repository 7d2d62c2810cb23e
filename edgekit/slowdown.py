"""How long one inference takes after a pass, against before, timed in turn on this machine."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable

from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.passes.probes import probes
from edgekit_agent.failures import AgentError
from edgekit_agent.records import Samples
from edgekit_agent.runtimes import import_runtime

_RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
_TITLES = {"onnx": "onnxruntime", "tflite": "LiteRT"}
# A round runs each model about this long; a few rounds tell one that is faster.
_ROUND_S, _FEW_ROUNDS, _ROUNDS, _LIMIT_S = 0.005, 3, 11, 4.0
# Timing on a machine that does something else varies by some percent.
_SLOWER = 1.15


def slowdown_note(before: Model, after: Model, samples: Samples | None, *, seed: int) -> str:
    """Say how much slower a file is than the one it was made of; empty where it is not.

    Args:
        before: the pass's input.
        after: what it made.
        samples: calibration samples, the first of which is run; made-up inputs without any.
        seed: of the made-up inputs.
    """
    ratio = time_ratio(before, after, samples, seed=seed)
    if ratio is None or ratio < _SLOWER:
        return ""
    here = _TITLES[after.format]
    there = "" if before.format == after.format else f" of {_TITLES[before.format]}"
    return f"slower: an inference in {here} takes {ratio:.2f} times the time{there} before, here"


def time_ratio(before: Model, after: Model, samples: Samples | None, *, seed: int) -> float | None:
    """Time of ``after`` over that of ``before``, one thread each; ``None`` where one fails."""
    # A file of fixed sizes says what both can be fed.
    fed = after if (before.format, after.format) == ("onnx", "tflite") else before
    with contextlib.suppress(AgentError, UserError):
        feed = next(probes(fed, samples, seed=seed)).feed
        runs = []
        for model in (before, after):
            loaded = import_runtime(_RUNTIMES[model.format])(str(model.path), 1)
            runs.append(functools.partial(loaded.run, feed))
        return _ratio(*runs)
    return None


def _ratio(before: Callable[[], object], after: Callable[[], object]) -> float:
    """The median over rounds in which both take turns."""
    counts = [max(1, round(_ROUND_S / max(_seconds(run, 1), 1e-7))) for run in (before, after)]
    ratios: list[float] = []
    started = time.perf_counter()
    while len(ratios) < _ROUNDS and (not ratios or time.perf_counter() - started < _LIMIT_S):
        one, other = (_seconds(r, n) for r, n in zip((before, after), counts, strict=True))
        ratios.append(other / one)
        if len(ratios) == _FEW_ROUNDS and statistics.median(ratios) < 1:
            break
    return statistics.median(ratios)


def _seconds(run: Callable[[], object], count: int) -> float:
    """Mean seconds of a run; one before does not count."""
    run()
    started = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - started) / count
