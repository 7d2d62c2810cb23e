"""The command ``serve``: run the server until a signal ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any, Dict

from edgekit_agent.apps.installed import App, make_command, read_settings, read_statement
from edgekit_agent.apps.package_format import Package
from edgekit_agent.apps.serving.background import BackgroundProcess
from edgekit_agent.apps.serving.notify import get_watchdog_s, tell_systemd
from edgekit_agent.apps.serving.pages import list_assets
from edgekit_agent.apps.serving.predictor import Predictor
from edgekit_agent.apps.serving.processes import hold_state
from edgekit_agent.apps.serving.running import ask_health
from edgekit_agent.apps.serving.served_app import make_served_app
from edgekit_agent.apps.serving.server import HOST, AppServer

_POLL_S = 3600.0
_READY_S = 300.0


def serve(app: App, release: str, port: int) -> int:
    """Serve a release on the loopback address until a signal comes; return the exit status.

    Raises:
        AgentError: ``already_runs``, ``no_port``, ``corrupt``.
    """
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda *_: ends.set())
    package = read_statement(app.home, release)
    folder = app.home.release(release)
    with hold_state(app) as state:
        predictor = Predictor(make_command(app, release, ["app-worker"]))
        try:
            assets = list_assets(os.path.join(folder, "pages"))
            facts = describe_release(app, release, package)
            served = make_served_app(package, predictor, assets, facts)
            with AppServer(port, served) as server:
                state.write(server.server_port, release)
                thread = threading.Thread(target=server.serve_forever, daemon=True)
                thread.start()
                sys.stdout.write(
                    f"{package.title} answers at http://{HOST}:{server.server_port}/\n"
                )
                sys.stdout.flush()
                _run(app, release, package, server, ends)
                server.shutdown()
        finally:
            predictor.close()
    return 0


def _run(
    app: App, release: str, package: Package, server: AppServer, ends: threading.Event
) -> None:
    """Wait for the end; meanwhile run the app's own background function, and tell systemd."""
    with contextlib.ExitStack() as stack:
        if package.background:
            command = make_command(app, release, ["app-background", str(server.server_port)])
            stack.enter_context(BackgroundProcess(command))
        threading.Thread(target=_tell_ready, args=(server, ends), daemon=True).start()
        watchdog_s = get_watchdog_s()
        while not ends.wait(watchdog_s / 3 if watchdog_s else _POLL_S):
            if watchdog_s and ask_health(server.server_port):
                tell_systemd("WATCHDOG=1")
        tell_systemd("STOPPING=1")


def _tell_ready(server: AppServer, ends: threading.Event) -> None:
    server.app.predictor.wait_until_ready(_READY_S)
    if not ends.is_set():
        tell_systemd("READY=1")


def describe_release(app: App, release: str, package: Package) -> Dict[str, Any]:
    """Return what ``/health`` and ``status`` tell of a release.

    Raises:
        AgentError: ``corrupt``.
    """
    folder = app.home.release(release)
    digests = {model.name: read_settings(folder, model).digest for model in package.models}
    return {
        "name": package.name,
        "title": package.title,
        "version": package.version,
        "release": release,
        "model": digests[package.models[0].name],
        "models": digests,
    }
