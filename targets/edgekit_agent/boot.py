"""Start of the watcher at boot: a systemd user unit if the user lingers, else cron."""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from typing import List

from edgekit_agent.files import sha256_of, whole_file, write_whole
from edgekit_agent.supervise import ROOT, agent_command

_SCRIPT, _WATCHER = "watch.sh", "watch.pyz"
_CRON_TIMEOUT_S = 10
_CRON_DAEMONS = ("cron", "crond")

_UNIT = """\
[Unit]
Description=edgekit: go back unless the new release was confirmed

[Service]
Type=oneshot
ExecStart=/bin/sh "{script}"

[Install]
WantedBy=default.target
"""


def watcher_command(home: str) -> List[str]:
    """Return the command that watches a home, run from a copy of the agent that is kept."""
    if not os.path.isfile(ROOT):
        return agent_command(["watch", home])
    copy = os.path.join(home, _WATCHER)
    if not os.path.isfile(copy) or sha256_of(copy) != sha256_of(ROOT):
        with open(ROOT, "rb") as source, whole_file(copy, is_private=True) as target:
            shutil.copyfileobj(source, target)
    return [sys.executable, "-I", copy, "watch", home]


def prepare_boot(home: str, *, system: str = "/") -> str:
    """Install the start of the watcher at boot.

    Args:
        home: what it is to watch.
        system: the root of the file system.

    Returns:
        ``systemd`` or ``cron``, by which it is started; empty where neither can do so.
    """
    script = os.path.join(home, _SCRIPT)
    if not script.isprintable():
        return ""  # neither a unit nor a crontab can hold such a path
    try:
        command = " ".join(map(shlex.quote, watcher_command(home)))
        _write_changed(script, f"#!/bin/sh\nexec {command}\n")
        if _lingers(system):
            _enable_unit(home, script)
            return "systemd"
        if _has_cron(system) and _add_to_crontab(home, script):
            return "cron"
    except (OSError, KeyError, subprocess.SubprocessError):
        pass  # nothing is promised: the host tells the user
    return ""


def _lingers(system: str) -> bool:
    """Return whether systemd starts this user's units at boot, without a login."""
    user = pwd.getpwuid(os.getuid()).pw_name
    return os.path.isdir(os.path.join(system, "run/systemd/system")) and os.path.exists(
        os.path.join(system, "var/lib/systemd/linger", user)
    )


def _enable_unit(home: str, script: str) -> None:
    """Write the unit and the link that ``systemctl --user enable`` makes; no bus is needed."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    units = os.path.join(config, "systemd", "user")
    wants = os.path.join(units, "default.target.wants")
    name = f"edgekit-watch-{_tag(home)}.service"
    os.makedirs(wants, exist_ok=True)
    escaped = script.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    escaped = escaped.replace("$", "$$")
    _write_changed(os.path.join(units, name), _UNIT.format(script=escaped))
    link = os.path.join(wants, name)
    if not os.path.islink(link):
        os.symlink(os.path.join(os.pardir, name), link)


def _has_cron(system: str) -> bool:
    """Return whether a cron that knows ``@reboot`` runs here."""
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
            if name in _CRON_DAEMONS:
                return True
    return False


def _add_to_crontab(home: str, script: str) -> bool:
    tag = f"# edgekit-watch-{_tag(home)}"
    line = f"@reboot /bin/sh {shlex.quote(script)} {tag}".replace("%", "\\%")
    listed = _crontab(["-l"])
    lines = listed.stdout.decode(errors="surrogateescape").splitlines()
    if line in lines:
        return True
    kept = [each for each in lines if not each.endswith(tag)]
    text = "\n".join([*kept, line]) + "\n"
    return _crontab(["-"], text.encode(errors="surrogateescape")).returncode == 0


def _crontab(arguments: List[str], text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["crontab", *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_CRON_TIMEOUT_S,
        check=False,
    )


def _write_changed(path: str, text: str) -> None:
    data = text.encode(errors="surrogateescape")
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return
    except FileNotFoundError:
        pass
    write_whole(path, data)


def _tag(home: str) -> str:
    """Return a tag that is unique to a home."""
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
