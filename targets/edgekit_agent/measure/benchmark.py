"""Benchmark of a model: load time, warm-up, single inferences, peak memory, energy. Needs numpy."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.measure import sensors
from edgekit_agent.measure.feeds import Batch, find_batch_size, iter_batches, iter_runs
from edgekit_agent.measure.memory import peak_rss_bytes
from edgekit_agent.measure.model_loading import load_model
from edgekit_agent.runtimes import LoadedModel, Tensor
from edgekit_agent.samples import Samples
from edgekit_agent.wire import Progress
from edgekit_agent.worker_jobs import BenchJob
from edgekit_agent.worker_results import Latency, Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays

# The inputs kept in memory count in the reported peak, so they are few and small together.
_HELD_SAMPLES = 32
_HELD_BYTES = 4 << 20

_STEADY = 0.05
_DRIFT = 0.1
_WINDOW_RUNS = 5
_WINDOW_S = 0.05
# A window of a slow model ends here even with fewer runs, so that two fit in the warm-up.
_WINDOW_SHARE = 0.25
_BETWEEN_SAMPLES_S = 0.1
_MIN_RUNS_DRIFT = 9


def bench(job: BenchJob, progress: Progress) -> Report:
    """Measure latency, memory and energy of a model in this process, which must be a fresh one.

    The energy is that of the whole device during a run, its idle consumption included. Of samples
    of different sizes, those of the median size are timed, and the largest counts for the memory.

    Raises:
        AgentError: ``bad_job`` for samples or numbers that don't fit; errors of the runtime.
    """
    if not (1 <= job.min_runs <= job.max_runs and job.seconds >= 0 and job.warmup_s >= 0):
        raise AgentError(
            "bad_job", "bench: min_runs must be from 1 to max_runs, and times must not be negative"
        )
    progress("load", 0, 0)
    session = load_model(job.model)
    collected = collect_inputs(job, session.model)
    is_ragged = job.samples is not None and bool(job.samples.lengths)
    timer = _Timer(session.model, select_median_size(collected) if is_ragged else collected)
    warmup_runs, steady = _warm_up(timer, job.warmup_s, progress)
    meter, before, runs = sensors.EnergyMeter(), sensors.take_snapshot(), timer.runs
    values = _measure(timer, job, meter, progress)
    after, energy_mj = sensors.take_snapshot(), meter.used_mj()
    if len(timer.inputs) < len(collected):
        session.model.run(max(collected, key=_count_bytes))
    doubts = {
        "unsteady": not steady,
        "throttled": sensors.is_throttled(before, after),
        "loaded": sensors.is_loaded(before, after),
        "drifting": is_drifting(values),
    }
    return Report(
        latency=Latency(
            values_ms=tuple(values),
            threads=job.model.threads,
            warmup_runs=warmup_runs,
            load_ms=session.load_ms,
            doubts=tuple(name for name, holds in doubts.items() if holds),
        ),
        peak_rss_bytes=peak_rss_bytes(),
        runtime_rss_bytes=session.runtime_rss_bytes,
        runtime=job.model.runtime,
        runtime_version=session.model.version,
        energy_mj=None if energy_mj is None else energy_mj / (timer.runs - runs),
    )


def is_drifting(values_ms: Sequence[float]) -> bool:
    """Check whether the medians of the first and the last third differ by more than a tenth."""
    third = len(values_ms) // 3
    if len(values_ms) < _MIN_RUNS_DRIFT:
        return False
    first, last = statistics.median(values_ms[:third]), statistics.median(values_ms[-third:])
    return abs(last - first) > _DRIFT * first


@dataclass
class _Timer:
    """A timer of single inferences that cycles through the inputs."""

    model: LoadedModel
    inputs: List[Mapping[str, NDArray[Any]]]
    runs: int = field(default=0)

    def run_ms(self) -> float:
        inputs = self.inputs[self.runs % len(self.inputs)]
        self.runs += 1
        start = time.perf_counter_ns()
        self.model.run(inputs)
        return (time.perf_counter_ns() - start) / 1e6


def _warm_up(timer: _Timer, limit_s: float, progress: Progress) -> Tuple[int, bool]:
    """Run until two windows in a row agree; return the number of runs and whether they agreed."""
    start = time.monotonic()
    last: Optional[float] = None
    while True:
        window, begun = [timer.run_ms()], time.monotonic()
        while not _is_window_full(len(window), time.monotonic() - begun, limit_s):
            window.append(timer.run_ms())
        median = statistics.median(window)
        if last is not None and abs(median - last) < _STEADY * last:
            return timer.runs, True
        if time.monotonic() - start >= limit_s:
            return timer.runs, False
        last = median
        progress("warm-up", 0, 0)


def _is_window_full(runs: int, seconds: float, limit_s: float) -> bool:
    if seconds >= _WINDOW_SHARE * limit_s:
        return True
    return runs >= _WINDOW_RUNS and seconds >= _WINDOW_S


def _measure(
    timer: _Timer, job: BenchJob, meter: sensors.EnergyMeter, progress: Progress
) -> List[float]:
    values: List[float] = []
    gc.collect()
    gc.disable()  # a collection in the middle of a run would count as its time
    begun = time.monotonic()
    for _ in range(_WINDOW_RUNS):  # reading sensors and collecting garbage emptied the caches
        timer.run_ms()
        if time.monotonic() - begun >= _WINDOW_S:
            break
    begun = sampled = time.monotonic()
    while len(values) < job.max_runs:
        moment = time.monotonic()
        if len(values) >= job.min_runs and moment - begun >= job.seconds:
            break
        if moment - sampled >= _BETWEEN_SAMPLES_S:
            sampled = moment
            meter.sample()
            progress("bench", len(values), job.min_runs)
        values.append(timer.run_ms())
    gc.enable()
    return values


def collect_inputs(job: BenchJob, model: LoadedModel) -> List[Mapping[str, NDArray[Any]]]:
    """Return the inputs to time in turn: those of a few samples, or random ones."""
    if job.samples is None:
        return [_make_random_inputs(model.inputs, job)]
    batch = find_batch_size(job.samples, model.inputs) or 1
    collected: List[Mapping[str, NDArray[Any]]] = []
    size = 0
    for one in _iter_input_batches(job.samples, model, batch):
        collected.append(one.inputs)
        size += _count_bytes(one.inputs)
        if len(collected) >= _HELD_SAMPLES or size >= _HELD_BYTES:
            break
    return collected


def select_median_size(
    collected: List[Mapping[str, NDArray[Any]]],
) -> List[Mapping[str, NDArray[Any]]]:
    """Return the inputs that have the shapes of the one of median size."""
    ranked = sorted(collected, key=_count_bytes)
    wanted = ranked[(len(ranked) - 1) // 2]
    return [one for one in collected if all(one[n].shape == v.shape for n, v in wanted.items())]


def _count_bytes(inputs: Mapping[str, NDArray[Any]]) -> int:
    return sum(values.nbytes for values in inputs.values())


def _iter_input_batches(samples: Samples, model: LoadedModel, batch: int) -> Iterator[Batch]:
    """Return batches as the model is run on them; the states are those that the model computes."""
    if samples.states:
        return (one for one, _ in iter_runs(samples, model, batch))
    return iter_batches(samples, model.inputs, batch)


def _make_random_inputs(inputs: Sequence[Tensor], job: BenchJob) -> Arrays:
    """Create random inputs with a fixed seed: normal floats, zeros for integers and booleans."""
    generator = np.random.default_rng(0)
    arrays = {}
    for tensor in inputs:
        shape = [
            dim if isinstance(dim, int) else job.dims.get(_name_dimension(tensor, axis, dim), 1)
            for axis, dim in enumerate(tensor.shape)
        ]
        dtype = np.dtype(tensor.dtype)
        array = generator.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        arrays[tensor.name] = array.astype(dtype)
    return arrays


def _name_dimension(tensor: Tensor, axis: int, stated: str) -> str:
    """Return the name of a free dimension: that of the file, else ``INPUT.AXIS``."""
    return f"{tensor.name}.{axis}" if stated in ("", "?", "-1", "0", "None") else stated
