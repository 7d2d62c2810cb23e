"""Line in the user's crontab that runs a command at boot."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import List

from edgekit_agent.boot.mounts import is_in_memory
from edgekit_agent.failures import AgentError

_TIMEOUT_S = 20
_DAEMONS = ("cron", "crond")
_SPOOL = "/var/spool/cron"
# Message of ``crontab -l`` if there is no crontab yet; after any other failure none is written.
_NONE_YET = b"no crontab for"


def add_line(name: str, command: List[str], *, system: str = "/") -> bool:
    """Make cron run a command at boot; every other line of the crontab is kept as it is.

    Args:
        name: tag of the line; a line with the same tag is replaced.
        command: the command to run.
        system: root of the file system.

    Returns:
        Whether the crontab was changed.

    Raises:
        AgentError: ``not_added``: no cron that knows ``@reboot`` runs, or it refuses.
    """
    if not _is_cron_running(system):
        raise AgentError("not_added", "no running cron supports @reboot")
    if is_in_memory(_SPOOL):
        raise AgentError("not_added", "crontabs are stored in memory only")
    tag = f"# {name}"
    line = f"@reboot {' '.join(map(shlex.quote, command))} {tag}".replace("%", "\\%")
    if "\\" in line.replace("\\%", ""):
        raise AgentError(
            "not_added", "the path contains a backslash, which cron programs read differently"
        )
    lines = _read_crontab()
    if line in lines:
        return False
    other_lines = [line_of_table for line_of_table in lines if not line_of_table.endswith(tag)]
    text = "\n".join([*other_lines, line]) + "\n"
    completed = _run_crontab(["-"], text.encode(errors="surrogateescape"))
    if completed.returncode:
        raise AgentError("not_added", _describe_failure(completed))
    if line not in _read_crontab():
        raise AgentError("not_added", "crontab did not save the line of edgekit")
    return True


def remove_line(name: str) -> bool:
    """Remove the line with a tag from the crontab, if there is one; return whether there was.

    Raises:
        AgentError: ``not_removed``: the crontab cannot be read or written.
    """
    if shutil.which("crontab") is None:
        return False
    tag = f"# {name}"
    lines = _read_crontab()
    other_lines = [line for line in lines if not line.endswith(tag)]
    if other_lines == lines:
        return False
    text = "".join(f"{line}\n" for line in other_lines)
    completed = _run_crontab(["-"], text.encode(errors="surrogateescape"))
    if completed.returncode:
        raise AgentError("not_removed", _describe_failure(completed))
    return True


def _read_crontab() -> List[str]:
    """Read the lines of the crontab; they end with line feeds alone."""
    listed = _run_crontab(["-l"])
    if listed.returncode:
        if _NONE_YET in listed.stderr:
            return []
        raise AgentError("not_added", _describe_failure(listed))
    lines = listed.stdout.decode(errors="surrogateescape").split("\n")
    return lines if lines[-1] else lines[:-1]


def _describe_failure(completed: subprocess.CompletedProcess[bytes]) -> str:
    message = " ".join(completed.stderr.decode(errors="replace").split())[:200]
    return f"crontab: {message or f'exit status {completed.returncode}'}"


def _is_cron_running(system: str) -> bool:
    """Return whether a cron that knows ``@reboot`` runs here; BusyBox's may not."""
    crontab = shutil.which("crontab")
    if crontab is None or "busybox" in os.path.realpath(crontab):
        return False
    proc = os.path.join(system, "proc")
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                with open(os.path.join(proc, entry, "comm"), "rb") as file:
                    name = file.read(64).strip().decode(errors="replace")
            except OSError:
                continue
            if name in _DAEMONS:
                return True
    return False


def _run_crontab(arguments: List[str], text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["crontab", *arguments],
        env={**os.environ, "LC_ALL": "C"},
        input=text,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
