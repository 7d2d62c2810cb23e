"""A systemd unit of the user that keeps the server of an app running."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Optional

from edgekit_agent.apps.installed import App
from edgekit_agent.apps.package_format import Package
from edgekit_agent.boot.user_units import (
    enable_text,
    is_lingering,
    iter_folders,
    quote,
    remove_unit,
    run_systemctl,
)
from edgekit_agent.failures import AgentError

_UNIT = """\
[Unit]
Description={title}

[Service]
Type=notify
NotifyAccess=main
ExecStart={launcher} serve --port {port}
Restart=on-failure
RestartSec=2
TimeoutStartSec=600
WatchdogSec=60
# If memory is short, the process of the models ends and is started again by the server.
OOMPolicy=continue
{memory}NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""
# systemctl waits until the server has loaded its models, which tells so after 300 s at the latest.
_CONTROL_S = 330.0
_LINGER = "it starts when you log in; to start it at boot: loginctl enable-linger"


def make_unit(app: App, package: Package, port: int) -> str:
    """Return the text of the unit: restart, watchdog and memory limit."""
    memory = f"MemoryMax={package.memory_mib}M\n" if package.memory_mib else ""
    title = package.title.replace("%", "%%").replace("\\", "\\\\")
    launcher = quote(app.launcher)
    return _UNIT.format(title=title, launcher=launcher, port=port, memory=memory)


def install_service(app: App, package: Package, port: int) -> str:
    """Enable the unit; return what the user should know, empty if nothing.

    Raises:
        AgentError: ``no_systemd``; ``foreign_file``: another installation has the unit.
    """
    if not app.launcher.isprintable():
        raise AgentError("no_systemd", f"no systemd unit can start {app.launcher!r}")
    if _read_unit(app) is not None and not has_service(app):
        raise AgentError(
            "foreign_file",
            f"the systemd unit {_get_name(app)} belongs to another installation of {app.name}",
            hint="uninstall that one first",
        )
    try:
        enable_text(_get_name(app), make_unit(app, package, port))
    except (AgentError, OSError, subprocess.TimeoutExpired) as error:
        raise AgentError(
            "no_systemd",
            f"the app is installed, but not as a systemd service: {error}",
            hint=f"start it by hand: {app.launcher} serve",
        ) from error
    return "" if is_lingering() else _LINGER


def has_service(app: App) -> bool:
    """Return whether a unit starts this installation of the app."""
    text = _read_unit(app)
    return text is not None and f"\nExecStart={quote(app.launcher)} serve" in text


def control_service(app: App, verb: str) -> None:
    """Start, stop or restart the unit.

    Raises:
        AgentError: ``no_systemd``.
    """
    try:
        if verb != "stop":
            run_systemctl("daemon-reload")
        done = run_systemctl(verb, f"{_get_name(app)}.service", timeout_s=_CONTROL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentError("no_systemd", f"systemctl: {error}") from error
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())[:200]
        raise AgentError("no_systemd", f"systemctl: {reason}")


def remove_service(app: App) -> None:
    """Stop and remove the unit, if it starts this installation of the app."""
    if has_service(app):
        with contextlib.suppress(AgentError):
            control_service(app, "stop")
        remove_unit(_get_name(app))


def _get_name(app: App) -> str:
    return f"edgekit-{app.name}"


def _read_unit(app: App) -> Optional[str]:
    try:
        folders = list(iter_folders())
    except KeyError:  # a user without a name has no units
        return None
    for folder in folders:
        path = os.path.join(folder, f"{_get_name(app)}.service")
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    return None
