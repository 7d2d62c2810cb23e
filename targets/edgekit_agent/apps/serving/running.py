"""Start, stop and restart of the server of an app in the background."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from typing import Any, Callable, Dict, Optional

from edgekit_agent.apps.installed import App
from edgekit_agent.apps.serving.processes import Running, find_running, stop_server
from edgekit_agent.apps.user_service import control_service, has_service
from edgekit_agent.failures import AgentError

LOG, OLDER_LOG = "serve.log", "serve.1.log"
_MOST_LOG_BYTES = 1 << 20
_START_S, _POLL_S, _ANSWER_S = 300.0, 0.1, 10.0

Say = Callable[[str], None]
"""Called with the text of each stage."""


def start_server(app: App, port: int, say: Say) -> Running:
    """Start the server, and wait until it answers.

    Raises:
        AgentError: ``not_started``: with the last line that it wrote.
    """
    say("starting the app")
    if has_service(app):
        control_service(app, "restart")
        return _wait_until_ready(app, None)
    log = os.path.join(app.home.path, LOG)
    if os.path.isfile(log) and os.path.getsize(log) > _MOST_LOG_BYTES:
        os.replace(log, os.path.join(app.home.path, OLDER_LOG))
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [app.launcher, "serve", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd="/",
            start_new_session=True,
        )
    return _wait_until_ready(app, process)


def stop(app: App) -> bool:
    """Stop the server; return whether it ran."""
    running = find_running(app)
    if running is not None and has_service(app):
        control_service(app, "stop")
    return stop_server(app) or running is not None


def restart_if_running(app: App, say: Say) -> Optional[Running]:
    """Start the server again where it runs, so that it serves the current release."""
    running = find_running(app)
    if running is None:
        return None
    if not has_service(app):
        stop_server(app)
    return start_server(app, running.port, say)


def restart(app: App) -> None:
    """Start the server again where it runs; the release is current whether that succeeds or not.

    Nothing is told about it: a host that hangs up would end it between stop and start.
    """
    with contextlib.suppress(AgentError, OSError):
        restart_if_running(app, lambda text: None)


def ask_health(port: int) -> Optional[Dict[str, Any]]:
    """Return what the server at a port tells of itself; ``None`` if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        values = json.loads(response.read(1 << 20))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    is_answer = response.status == http.HTTPStatus.OK and isinstance(values, dict)
    return values if is_answer else None


def _wait_until_ready(app: App, process: Optional[subprocess.Popen[bytes]]) -> Running:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        running = find_running(app)
        health = ask_health(running.port) if running is not None else None
        if running is not None and health is not None and health.get("ready") is True:
            return running
        if process is not None and process.poll() is not None:
            raise AgentError("not_started", f"the app has ended: {_read_last_line(app)}")
        if health is not None and health.get("problem"):
            raise AgentError("not_started", f"the app is not ready: {health['problem']}")
        time.sleep(_POLL_S)
    raise AgentError("not_started", f"the app is not ready after {_START_S:.0f} seconds")


def _read_last_line(app: App) -> str:
    try:
        with open(os.path.join(app.home.path, LOG), "rb") as file:
            lines = file.read(1 << 22).decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it wrote nothing"
