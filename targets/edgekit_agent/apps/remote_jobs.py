"""Jobs of the host about homes that may hold an app: its package, its state and its removal."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any, Dict, List, Optional

from edgekit_agent.apps.device_checks import check_device
from edgekit_agent.apps.install import install_package, run_self_check
from edgekit_agent.apps.installed import MAIN_HOME, App, check_is_app, get_app
from edgekit_agent.apps.launcher import check_launcher, remove_launcher
from edgekit_agent.apps.received_package import ReceivedPackage
from edgekit_agent.apps.serving.running import restart, stop
from edgekit_agent.apps.statement_text import decode_statement
from edgekit_agent.apps.switching import roll_back
from edgekit_agent.apps.user_service import remove_service
from edgekit_agent.apps.waiting import Ticker
from edgekit_agent.boot.watch import MOST_SECONDS
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import PackageJob, PackagePlanJob, RollbackJob, StatusJob, UninstallJob
from edgekit_agent.releases import install as releases
from edgekit_agent.releases.current import current_release, is_app
from edgekit_agent.releases.homes import Home, open_home
from edgekit_agent.releases.lock_wait import wait_until_unlocked
from edgekit_agent.releases.store import free_bytes
from edgekit_agent.releases.uninstall import uninstall
from edgekit_agent.results import PackagePlan, Status, UninstallResult
from edgekit_agent.wire import Progress
from edgekit_agent.worker_results import Health


class ProgressTicker(Ticker):
    """A ticker that reports to the host instead of writing lines."""

    def __init__(self, app: App, progress: Progress) -> None:
        super().__init__(app.name)
        self._progress, self._stage = progress, ""

    def begin(self, text: str) -> None:
        """Report that a stage begins."""
        self._stage = text
        self._progress(text, 0, 0)

    def report(self, done: int, total: int) -> None:
        """Report how much of the stage is done."""
        self._progress(self._stage, done, total)


def plan_package(job: PackagePlanJob) -> PackagePlan:
    """Check that this device can run a package, and report the members that it lacks.

    Nothing is changed.

    Raises:
        AgentError: ``bad_job``, ``unsuitable``, ``noexec``, ``no_space``, ``foreign_file``,
            ``name_in_use``.
    """
    app = _find_app(job.home, job.app)
    package = ReceivedPackage(app.home, decode_statement(job.package))
    missing = package.list_missing()
    sizes = {file.path: file.bytes + file.installed_bytes for file in package.package.files}
    main = Home(app.home.main_path)
    check_device(package.package, main, sum(sizes[path] for path in missing))
    check_launcher(app)
    check_is_app(app)
    return PackagePlan(missing, free_bytes(main))


def install_received(job: PackageJob, progress: Progress) -> Status:
    """Install a package from received members, check it, and switch its app to it.

    If the app runs, it is started again.

    Raises:
        AgentError: see ``install_package``.
    """
    if not 0 <= job.watch_s <= MOST_SECONDS:
        raise AgentError("bad_job", f"watch_s is {job.watch_s:g}, must be 0 to {MOST_SECONDS:g}")
    app = _find_app(job.home, job.app)
    package = ReceivedPackage(app.home, decode_statement(job.package), job.signature)
    ticker = ProgressTicker(app, progress)
    done = install_package(package, app, ticker, permit=job.permit, watch_s=job.watch_s)
    if done.is_changed:
        restart(app)
    return _describe(job.home, job.app, done.models)


def roll_back_app(job: RollbackJob) -> Status:
    """Serve the previous release of an app, and start the app again if it runs.

    Raises:
        AgentError: see ``roll_back``.
    """
    app = get_app(open_home(job.home, job.app))
    roll_back(app, Ticker(app.name))
    restart(app)
    return _describe(job.home, job.app, None)


def report_status(job: StatusJob, ask_health: releases.AskHealth) -> Status:
    """Report the state of a home; check the served release if asked, also that of an app.

    Raises:
        AgentError: see ``status``; ``unhealthy``.
    """
    home = open_home(job.home, job.app)
    if job.wait_s:
        wait_until_unlocked(home.path, job.wait_s)
    if not job.check or not is_app(home) or current_release(home) != job.check:
        return releases.status(job, ask_health)
    state = releases.status(replace(job, check=""), ask_health)
    models = run_self_check(get_app(home), job.check)
    is_served = state.current is not None and state.current.name == job.check
    return replace(state, health=_find_worst(models) if is_served else None)


def uninstall_home(job: UninstallJob) -> UninstallResult:
    """Remove a named home; of an app, also its processes, its unit and its command.

    Raises:
        AgentError: see ``uninstall``; ``does_not_end``.
    """
    if not job.app:
        return uninstall(job)  # refused
    app = get_app(open_home(job.home, job.app))
    if is_app(app.home):
        remove_service(app)
        stop(app)
    try:
        return uninstall(job)
    finally:
        if not os.path.isdir(app.home.path):
            remove_launcher(app)


def _find_app(path: str, name: str) -> App:
    """Return the app of a name; its command belongs into ``bin`` below the same prefix.

    Raises:
        AgentError: ``bad_job``: the home is not ``share/edgekit`` below a prefix.
    """
    app = get_app(open_home(path, name))
    main = app.home.main_path
    if not name or main != os.path.join(app.prefix, MAIN_HOME):
        raise AgentError(
            "bad_job",
            f"{main} is not a folder share/edgekit: an app also has a command in bin/",
            hint="choose such a folder: --home ~/.local/share/edgekit",
        )
    return app


def _describe(home: str, app: str, models: Optional[List[Dict[str, Any]]]) -> Status:
    """Return the state after an installation or a rollback, whose self-check has passed."""

    def refuse(question: object) -> Health:
        raise AgentError("internal", "the release of an app has a check of its own")

    state = releases.status(StatusJob(home, app=app), refuse)
    return replace(state, health=Health(True, 0.0) if models is None else _find_worst(models))


def _find_worst(models: List[Dict[str, Any]]) -> Health:
    """Return the health of the model with the largest error."""
    errors = [float(model.get("relative_error", 0.0)) for model in models]
    worst = max((error for error in errors if math.isfinite(error)), default=0.0)
    return Health(all(model.get("healthy") is True for model in models), worst)
