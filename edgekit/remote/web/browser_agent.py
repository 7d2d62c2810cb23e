"""Agent that runs the jobs of a device in headless Chromium: timing and scoring of a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from numpy.typing import NDArray

from edgekit.config.shipped_files import get_shipped_folder, iter_files
from edgekit.errors import DeviceError
from edgekit.remote.web.chromium import Browser, start_chromium
from edgekit.remote.web.messages import Message
from edgekit.remote.web.page_server import Page, Source, serve_page
from edgekit.remote.web.runtime_files import PACKAGE, WebRuntime
from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.measure import sensors
from edgekit_agent.measure.accuracy import score_model
from edgekit_agent.measure.benchmark import (
    collect_inputs,
    is_drifting,
    select_median_size,
)
from edgekit_agent.runtimes import Tensor
from edgekit_agent.worker_jobs import BenchJob, ModelRef, ScoreJob
from edgekit_agent.worker_results import Latency, Report, StageProgress, TallyPart

R = TypeVar("R")
Progress = Callable[[StageProgress], None]
_START_S = 60.0
_LOAD_S = 600.0
_RUN_S = 600.0
# A timing may also take this many times the requested seconds.
_SLACK = 20.0


@dataclass(kw_only=True)
class BrowserModel:
    """A model loaded in the page; see ``edgekit_agent.runtimes.LoadedModel``."""

    page: Page
    browser: Browser
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    version: str
    threads: int
    load_ms: float
    runtime_bytes: int

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one inference in the browser."""
        return dict(self.ask(Message(facts={"command": "run"}, arrays=inputs), _RUN_S).arrays)

    def ask(self, message: Message, silence_s: float) -> Message:
        """Send a command to the page.

        Raises:
            AgentError: The page or the browser failed; ``kind`` is that of a device's failure.
        """
        try:
            return self.page.ask(message, silence_s=silence_s, has_ended=self.browser.has_ended)
        except DeviceError as error:
            raise AgentError(error.kind, error.message, transient=error.transient) from error


@dataclass(frozen=True)
class BrowserAgent:
    """Runs each job in a browser of its own, as the agent of a device does in a process."""

    runtime: WebRuntime

    def ask(
        self, job: object, result: type[R], *, progress: Callable[[StageProgress], None] | None
    ) -> R:
        """Run a job and return its result.

        Raises:
            DeviceError: The browser or the model failed, or a browser cannot do this job.
        """
        report = _make_listener(progress)
        try:
            if isinstance(job, BenchJob):
                return cast("R", self._bench(job, report))
            if isinstance(job, ScoreJob):
                if job.combination is not None:
                    raise AgentError("bad_job", "several models cannot be combined in a browser")
                with self.load(job.model) as model:
                    report("load", 0, 0)
                    return cast("R", score_model(job, model, report))
        except AgentError as error:
            failure = error.failure
            message = failure.message.removeprefix("web: ")
            raise DeviceError(
                f"web: {message}",
                hint=failure.hint,
                transient=failure.transient,
                kind=failure.kind,
            ) from error
        raise DeviceError(f"web: {type(job).__name__} cannot run in a browser", kind="bad_job")

    @contextlib.contextmanager
    def load(self, ref: ModelRef) -> Iterator[BrowserModel]:
        """Start a browser and load a model in it.

        Raises:
            AgentError: The browser does not start, or the runtime refuses the model.
        """
        files = {**list_page_files(self.runtime), "model.onnx": Path(ref.path)}
        with _convert_errors(), _open_page(files) as (page, browser):
            page.receive(silence_s=_START_S, has_ended=browser.has_ended)
            runtime_bytes = browser.measure_peak_bytes()
            loaded = page.ask(
                Message(facts={"command": "load", "threads": ref.threads}),
                silence_s=_LOAD_S,
                has_ended=browser.has_ended,
            ).facts
            yield BrowserModel(
                page=page,
                browser=browser,
                inputs=_read_tensors(loaded["inputs"]),
                outputs=_read_tensors(loaded["outputs"]),
                version=self.runtime.version,
                threads=int(loaded["threads"]),
                load_ms=float(loaded["load_ms"]),
                runtime_bytes=runtime_bytes,
            )

    def read_greeting(self) -> Mapping[str, Any]:
        """Start a browser; return its ``agent``, ``cores``, and whether it is ``isolated``.

        Raises:
            DeviceError: It does not start.
        """
        with _open_page(list_page_files(self.runtime)) as (page, browser):
            return page.receive(silence_s=_START_S, has_ended=browser.has_ended).facts

    def _bench(self, job: BenchJob, report: _Listener) -> Report:
        with self.load(job.model) as model:
            report("load", 0, 0)
            collected = collect_inputs(job, model)
            is_ragged = job.samples is not None and bool(job.samples.lengths)
            timed = select_median_size(collected) if is_ragged else collected
            before = sensors.take_snapshot()
            report("bench", 0, job.min_runs)
            arrays = {
                f"{number}:{name}": values
                for number, each in enumerate(timed)
                for name, values in each.items()
            }
            settings = {
                "command": "time",
                "inputs": len(timed),
                "warmup_s": job.warmup_s,
                "seconds": job.seconds,
                "min_runs": job.min_runs,
                "max_runs": job.max_runs,
            }
            limit_s = _RUN_S + _SLACK * (job.warmup_s + job.seconds)
            said = model.ask(Message(facts=settings, arrays=arrays), limit_s).facts
            values = tuple(float(each) for each in said["values_ms"])
            after = sensors.take_snapshot()
            report("bench", job.min_runs, job.min_runs)
            doubts = {
                "unsteady": not said["steady"],
                "throttled": sensors.is_throttled(before, after),
                "drifting": is_drifting(values),
            }
            return Report(
                latency=Latency(
                    values_ms=values,
                    threads=model.threads,
                    warmup_runs=int(said["warmup_runs"]),
                    load_ms=model.load_ms,
                    doubts=tuple(name for name, holds in doubts.items() if holds),
                ),
                peak_rss_bytes=model.browser.measure_peak_bytes(),
                runtime_rss_bytes=model.runtime_bytes,
                runtime=PACKAGE,
                runtime_version=model.version,
            )


@contextlib.contextmanager
def _open_page(files: Mapping[str, Source]) -> Iterator[tuple[Page, Browser]]:
    with serve_page(files) as (page, address), start_chromium(address) as browser:
        yield page, browser


def list_page_files(runtime: WebRuntime) -> dict[str, Source]:
    """Return the files of the page that runs the commands, by name."""
    files: dict[str, Source] = dict(iter_files(get_shipped_folder("targets/web/bench")))
    return files | {f"runtime/{name}": data for name, data in runtime.files.items()}


_Listener = Callable[..., None]


def _make_listener(progress: Progress | None) -> _Listener:
    """Return the callback of the agent's functions, which reports to that of a session."""

    def report(stage: str, done: int, total: int, part: dict[str, Any] | None = None) -> None:
        if progress is not None:
            decoded = None if part is None else decode(TallyPart, part)
            progress(StageProgress(stage, done, total, decoded))

    return report


def _read_tensors(listed: list[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(str(t["name"]), str(t["dtype"]), tuple(t["shape"])) for t in listed)


@contextlib.contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except DeviceError as error:
        raise AgentError(error.kind, error.message, hint=error.hint) from error
