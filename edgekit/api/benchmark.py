"""Measurement of a bundle or a model on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from edgekit.api.arguments import (
    Device,
    HomePath,
    MetricName,
    Sizes,
    choose_home,
    resolve_data,
    resolve_device,
    resolve_folder,
)
from edgekit.api.failures import convert_failures
from edgekit.argument_checks import AnyPath, Host, check_arguments
from edgekit.bundle.sent_files import SentFiles
from edgekit.pipeline import benchmark
from edgekit.pipeline.benchmark import BenchResult, Subject, open_subject
from edgekit.pipeline.model_settings import resolve_model
from edgekit.progress import Tick, ignore_progress
from edgekit.remote.home import Home


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A measurement of one model, to be run on hosts."""

    subject: Subject
    home: Home

    @property
    def sent(self) -> SentFiles:
        """Return the files that a host gets, with a word on real samples in them."""
        return self.subject.sent

    def __call__(self, host: str, progress: Tick) -> BenchResult:
        """Measure on a host."""
        with convert_failures():
            return benchmark.bench(self.subject, host, progress, self.home)


@check_arguments
def bench(
    target: AnyPath,
    host: Host,
    *,
    eval: AnyPath | None = None,
    metric: MetricName | None = None,
    device: Device | None = None,
    home: HomePath | Home | None = None,
    dims: Sizes | None = None,
    trust_pickle: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> BenchResult:
    """Measure latency, memory and accuracy of a bundle or a model on a device.

    Missing files are sent; the release that the device serves stays. Relative paths are resolved
    from ``folder``.

    Args:
        target: The folder that ``build`` wrote, a .edgekit file, or a model.
        host: ``local``, ``web`` for headless Chromium on this machine, an ssh alias, or
            ``user@host:port``; an alias ``web`` is written ``ssh:web``.
        eval: Labeled samples to score.
        metric: A metric of ``list_metrics``, or ``module:function``; by default that of the
            bundle or the project.
        device: Profile that gives threads and runtime versions for a model, and edgekit's folder.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        dims: Sizes of free dimensions of a model by name.
        trust_pickle: Whether the model file may run the code that it carries.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The measurement. Attributes: ``host``; ``facts`` of the device; ``runtime``; ``threads``;
        ``times``, a summary of the latencies; ``peak_rss_bytes``; ``load_ms``; ``scores``, the
        values of the metrics, empty without ``eval``; ``notes``; ``sent``, the files with a word on
        real samples in them; ``reports`` with the raw values.

    Raises:
        UserError: An argument or one of the files is wrong.
        DeviceError: The device could not be reached, or cannot run the model.

    Examples:
        >>> import edgekit
        >>> result = edgekit.bench("model.onnx", "local", eval="eval.npz")
        >>> result.times.p50_ms > 0, str(result.scores[0])
        (True, '98.87 % (788/797)')
    """
    with open_benchmark(
        target,
        eval=eval,
        metric=metric,
        device=device,
        home=home,
        dims=dims,
        trust_pickle=trust_pickle,
        folder=folder,
        progress=progress,
    ) as measure:
        return measure(host, progress)


@check_arguments
@contextmanager
def open_benchmark(
    target: AnyPath,
    *,
    eval: AnyPath | None = None,
    metric: MetricName | None = None,
    device: Device | None = None,
    home: HomePath | Home | None = None,
    dims: Sizes | None = None,
    trust_pickle: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> Iterator[Benchmark]:
    """Open a bundle or a model once, to measure it on several hosts.

    Args and errors are those of ``bench``.

    Yields:
        The measurement, to be called with a host and a progress callback.
    """
    base = resolve_folder(folder)
    where = choose_home(home, device, folder=base)
    with ExitStack() as stack:
        with convert_failures():
            subject = stack.enter_context(
                open_subject(
                    resolve_model(base, target),
                    folder=base,
                    evaluation=resolve_data(eval),
                    metric=metric,
                    device=resolve_device(base, device),
                    trusted=trust_pickle,
                    dims=dict(dims or {}),
                    tick=progress,
                )
            )
        yield Benchmark(subject=subject, home=where)
