"""Loading of the model of a job, with its time and the memory of the runtime; for workers only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from edgekit_agent.measure.memory import rss_bytes
from edgekit_agent.runtimes import LoadedModel, import_runtime
from edgekit_agent.worker_jobs import ModelRef


@dataclass(frozen=True)
class Session:
    """A loaded model, its loading time, and the resident memory before it was loaded."""

    model: LoadedModel
    load_ms: float
    runtime_rss_bytes: int


def load_model(ref: ModelRef) -> Session:
    """Import the runtime of a job and load its model.

    Raises:
        AgentError: see ``import_runtime`` and the runtimes' ``load``.
    """
    load = import_runtime(ref.runtime)
    runtime_rss = rss_bytes()
    start = time.perf_counter_ns()
    model = load(os.path.expanduser(ref.path), ref.threads)
    return Session(model, (time.perf_counter_ns() - start) / 1e6, runtime_rss)
