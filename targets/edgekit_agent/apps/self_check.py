"""Self-check of an installed release: digests of its files, then golden samples of its models."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Callable, List, Tuple

from edgekit_agent.apps.installed import (
    REPAIR,
    App,
    find_damaged_files,
    get_site,
    make_command,
    read_settings,
    read_statement,
)
from edgekit_agent.apps.package_format import Package, PackagedModel
from edgekit_agent.apps.serving.frames import read_frame
from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.limits import get_health_limits
from edgekit_agent.releases import runtime_files
from edgekit_agent.supervise import run_in_worker
from edgekit_agent.wire import Outlet
from edgekit_agent.worker_jobs import HealthJob, ModelRef
from edgekit_agent.worker_results import Failure, Health

_MOST_NAMES = 3
_START_S = 300.0

Say = Callable[[str], None]
"""Called with the text of each stage."""


@dataclass(frozen=True)
class ModelHealth:
    """Largest error of a model's outputs on its golden samples, and the limit on it."""

    name: str
    healthy: bool
    relative_error: float
    limit: float
    detail: str


class QuietOutlet(Outlet):
    """An outlet whose lines nothing reads, for workers whose progress is not shown."""

    def __init__(self) -> None:
        super().__init__(os.open(os.devnull, os.O_WRONLY))

    def line(self, line: bytes) -> None:
        """Drop a line."""

    def close(self) -> None:
        """Release its file descriptor."""
        os.close(self.fd)


def check_files(app: App, release: str) -> Package:
    """Compare every file of a release and of its runtime with its digest.

    Returns:
        The statement of the release.

    Raises:
        AgentError: ``corrupt``: a file is missing or was changed.
    """
    package = read_statement(app.home, release)
    site, damaged = get_site(app.home, package), _list_damaged(app, release, package)
    if site is not None:
        damaged += [os.path.join(site, path) for path in runtime_files.find_damaged_files(site)]
    _refuse(damaged)
    return package


def check_release(app: App, release: str, package: Package) -> None:
    """Compare every file of a release with its digest, as storage may fail after the installation.

    Raises:
        AgentError: ``corrupt``: a file is missing or was changed.
    """
    _refuse(_list_damaged(app, release, package))


def _list_damaged(app: App, release: str, package: Package) -> List[str]:
    folder = app.home.release(release)
    return [os.path.join(folder, path) for path in find_damaged_files(folder, package)]


def _refuse(damaged: List[str]) -> None:
    if damaged:
        names = ", ".join(damaged[:_MOST_NAMES])
        more = f" and {len(damaged) - _MOST_NAMES} more" if len(damaged) > _MOST_NAMES else ""
        raise AgentError("corrupt", f"missing or changed: {names}{more}", hint=REPAIR)


def check_models(app: App, release: str, package: Package, say: Say) -> Tuple[ModelHealth, ...]:
    """Run the golden samples of every model, each in a process of its own.

    Raises:
        AgentError: a model cannot be run.
    """
    outlet = QuietOutlet()
    try:
        checked = []
        for model in package.models:
            say(f"checking the model {model.name}")
            checked.append(_check_model(app, release, package, model, outlet))
        return tuple(checked)
    finally:
        outlet.close()


def check_start(app: App, release: str, seconds: float = _START_S) -> None:
    """Start the process that answers samples, which loads all models and the app's own code.

    Raises:
        AgentError: ``unhealthy``: it does not start.
    """
    command = make_command(app, release, ["app-worker"])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr
    ) as worker:
        try:
            if worker.stdout is None:
                return
            message, _ = read_frame(worker.stdout.fileno(), time.monotonic() + seconds)
        except (EOFError, OSError, ValueError) as error:
            raise AgentError("unhealthy", "the process of its models does not start") from error
        finally:
            worker.kill()
    if "failure" in message:
        raise AgentError("unhealthy", decode(Failure, message["failure"]).message)


def _check_model(
    app: App, release: str, package: Package, model: PackagedModel, outlet: Outlet
) -> ModelHealth:
    folder = app.home.release(release)
    settings = read_settings(folder, model)
    path, golden = (
        os.path.join(folder, model.folder, name)
        for name in (settings.model, settings.golden_samples)
    )
    job = HealthJob(
        model=ModelRef(path, model.runtime, model.threads, get_site(app.home, package)),
        golden_samples=golden,
        max_relative_error=settings.max_relative_error,
    )
    health = decode(Health, run_in_worker(job, outlet, get_health_limits()))
    limit = settings.max_relative_error
    return ModelHealth(model.name, health.healthy, health.relative_error, limit, health.detail)
