"""Start of the watcher at boot: by a systemd user unit if the user lingers, else by cron."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import List

from edgekit_agent.boot import cron, user_units
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic, sha256_of, write_if_changed
from edgekit_agent.supervise import ROOT, agent_command

_SCRIPT, _WATCHER = "watch.sh", "watch.pyz"
# At boot the file systems of the home and of Python may not be mounted yet: retry for 10 minutes.
_RETRY = (
    'n=0; until /bin/sh "$0"; do n=$((n+1)); if [ $n -gt 120 ]; then exit 1; fi; sleep 5; '
    "done 2>/dev/null"
)


@dataclass(frozen=True)
class BootStart:
    """The way in which the watcher is started at boot.

    Attributes:
        mechanism: ``systemd`` or ``cron``; empty where neither can do so.
        problem: why neither can do so.
    """

    mechanism: str
    problem: str = ""


def watcher_command(home: str) -> List[str]:
    """Return the command that watches a home, run from a copy of the agent kept in the home."""
    if not os.path.isfile(ROOT):
        return agent_command(["watch", home])
    copy = os.path.join(home, _WATCHER)
    if not os.path.isfile(copy) or sha256_of(copy) != sha256_of(ROOT):
        with open(ROOT, "rb") as source, open_atomic(copy, is_private=True) as target:
            shutil.copyfileobj(source, target)
    return [sys.executable, "-I", copy, "watch", home]


def prepare_boot(home: str, *, system: str = "/") -> BootStart:
    """Install the start of the watcher at boot.

    Args:
        home: folder that is watched.
        system: root of the file system.
    """
    script = os.path.join(home, _SCRIPT)
    if not script.isprintable():
        return BootStart(
            "",
            "the path of edgekit's folder has characters that systemd units and crontabs do not "
            "support",
        )
    try:
        command = " ".join(map(shlex.quote, watcher_command(home)))
        write_if_changed(script, f"#!/bin/sh\nexec {command}\n")
    except OSError as error:
        return BootStart("", f"{script}: {error.strerror}")
    start = ["/bin/sh", "-c", _RETRY, script]
    problems = []
    for mechanism, add in (("systemd", user_units.enable_unit), ("cron", cron.add_line)):
        try:
            if add(_get_unit_name(home), start, system=system):
                os.sync()  # neither a new link nor a new crontab has reached the disk yet
        except AgentError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{mechanism}: {error}")
        except subprocess.TimeoutExpired as error:
            problems.append(f"{mechanism}: no answer within {error.timeout:.0f} s")
        else:
            return BootStart(mechanism)
    return BootStart("", ", and ".join(problems))


def start_now(home: str, start: BootStart) -> None:
    """Start the watcher in the user's systemd as well, so that it outlives the end of the session.

    With ``KillUserProcesses``, logind kills the processes that a session started.
    """
    if start.mechanism == "systemd":
        user_units.restart_unit(_get_unit_name(home))


def has_boot_start(home: str) -> bool:
    """Return whether the start of the watcher of a home at boot was ever prepared."""
    return os.path.lexists(os.path.join(home, _SCRIPT))


def remove_boot(home: str) -> str:
    """Remove the start of the watcher of a home at boot; return why that failed, or an empty text.

    Units and lines of crontabs of other homes stay.
    """
    problems = []
    for remove in (user_units.remove_unit, cron.remove_line):
        try:
            if remove(_get_unit_name(home)):
                os.sync()
        except (AgentError, OSError, subprocess.TimeoutExpired) as error:
            problems.append(str(error))
    return ", and ".join(problems)


def _get_unit_name(home: str) -> str:
    """Return a unit name that is unique to a home."""
    return f"edgekit-watch-{hashlib.sha256(os.fsencode(home)).hexdigest()[:8]}"
