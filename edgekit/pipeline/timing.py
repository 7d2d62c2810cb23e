"""Interleaved timing of models by the agent, on this machine or on a device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgekit.errors import DeviceError
from edgekit.progress import Tick
from edgekit_agent.samples import Samples
from edgekit_agent.worker_jobs import BenchJob, ModelRef
from edgekit_agent.worker_results import Report, StageProgress

R = TypeVar("R")

# Failures of the agent that are caused by the model, not by the connection.
_MODEL_AT_FAULT = ("killed", "model_failed", "no_memory", "internal")

# After this many rounds, models this many times slower than the fastest are no longer timed.
_HEATS, _FAR_BEHIND = 2, 1.5


class Agent(Protocol):
    """Agent that runs jobs, on this machine or on a device."""

    def ask(
        self, job: object, result: type[R], *, progress: Callable[[StageProgress], None] | None
    ) -> R:
        """Send a job and wait for its result."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Number and length of the timed rounds; each round runs in a new process."""

    rounds: int = 5
    warmup_s: float = 1.0
    seconds: float = 0.6
    min_runs: int = 10
    max_runs: int = 2000


def is_models_fault(error: DeviceError, *, here: bool) -> bool:
    """Return whether the model caused the failure of a job, so that other models may still succeed.

    Args:
        error: The failure.
        here: Whether the job ran on this machine. An agent that dies or falls silent there does so
            because of the model, as there is no link to lose.
    """
    return error.kind in _MODEL_AT_FAULT or (here and not error.kind)


def time_interleaved(
    agent: Agent,
    models: Mapping[str, ModelRef],
    samples: Samples | None,
    *,
    dims: Mapping[str, int],
    timing: Timing,
    racing: Sequence[str],
    tick: Tick,
    here: bool = False,
) -> dict[str, list[Report] | str]:
    """Time several models in turn, round by round, so that drift of the machine affects all alike.

    Args:
        agent: The agent that runs the models.
        models: The models by a key of the caller; the first one is timed in every round.
        samples: Samples for timing; ``None`` = random inputs that fit the signature.
        dims: Sizes of free dimensions.
        timing: Number and length of the rounds.
        racing: Keys of models that may still be chosen. After the first rounds, other models and
            those far slower than the fastest of these are no longer timed.
        tick: Progress callback.
        here: Whether ``agent`` runs on this machine.

    Returns:
        One report per round for each key of ``models``; for a model that fails, the reason.
    """
    reports: dict[str, list[Report]] = {key: [] for key in models}
    failures: dict[str, str] = {}
    asked = 0
    for turn in range(timing.rounds):
        keys = [key for key in models if key not in failures]
        if turn >= _HEATS:
            keys = [key for key in keys if key in _select_racing(reports, racing)]
        for position, key in enumerate(keys):
            expected = asked + len(keys) * (timing.rounds - turn) - position
            told = _make_timing_callback(tick, asked, expected, timing.min_runs)
            asked += 1
            job = _make_job(models[key], samples, dims, timing)
            try:
                reports[key].append(agent.ask(job, Report, progress=told))
            except DeviceError as error:
                if not is_models_fault(error, here=here):
                    raise
                failures[key] = error.message
    return reports | failures


def _make_timing_callback(
    tick: Tick, asked: int, expected: int, runs: int
) -> Callable[[StageProgress], None]:
    """Return a progress callback for one of several timing processes of ``runs`` steps each."""
    tick("timing", asked * runs, expected * runs)

    def hear(said: StageProgress) -> None:
        done = min(said.done, runs) if said.stage == "bench" else 0
        tick("timing", asked * runs + done, expected * runs)

    return hear


def _select_racing(reports: Mapping[str, Sequence[Report]], racing: Sequence[str]) -> set[str]:
    """Select the models to time in the later rounds."""
    quiet = {
        key: min(statistics.median(r.latency.values_ms) for r in found)
        for key, found in reports.items()
        if found
    }
    in_race = [key for key in quiet if key in racing]
    fastest = min((quiet[key] for key in in_race), default=0.0)
    return {next(iter(reports)), *(k for k in in_race if quiet[k] <= _FAR_BEHIND * fastest)}


def _make_job(
    model: ModelRef, samples: Samples | None, dims: Mapping[str, int], timing: Timing
) -> BenchJob:
    return BenchJob(
        model,
        samples,
        dict(dims),
        warmup_s=timing.warmup_s,
        seconds=timing.seconds,
        min_runs=timing.min_runs,
        max_runs=timing.max_runs,
    )
