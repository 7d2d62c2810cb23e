"""Units of the user's own systemd, which runs from boot on if the user lingers."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from typing import Iterator, List

from edgekit_agent.boot.mounts import is_in_memory
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, write_if_changed

_TIMEOUT_S = 20
_UNIT = """\
[Unit]
Description=edgekit: roll back unless the new release was confirmed

[Service]
ExecStart={command}

[Install]
WantedBy=default.target
"""


def enable_unit(name: str, command: List[str], *, system: str = "/") -> bool:
    """Make systemd run a command at boot, and check that it has read the unit.

    Args:
        name: name of the unit.
        command: the command that it runs.
        system: root of the file system.

    Returns:
        Whether anything was written.

    Raises:
        AgentError: ``not_enabled``: systemd does not run, does not start this user's units at
            boot, or does not read the folders that they can be in.
    """
    if is_systemd_running(system) and not is_lingering(system):
        reason = "lingering is off for the user (loginctl enable-linger)"
        raise AgentError("not_enabled", reason)
    text = _UNIT.format(command=" ".join(map(quote, command)))
    return enable_text(name, text, system=system)


def enable_text(name: str, text: str, *, system: str = "/") -> bool:
    """Write a unit and enable it, and check that systemd has read it.

    Without lingering it is started when the user logs in, and with it at boot.

    Returns:
        Whether anything was written.

    Raises:
        AgentError: ``not_enabled``: systemd does not run, or does not read the folders that units
            can be in.
    """
    if not is_systemd_running(system):
        raise AgentError("not_enabled", "the device has no systemd")
    answer = ""
    for folder in iter_folders():
        if is_in_memory(folder):
            answer = f"{folder} is stored in memory only"
            continue
        is_changed = _write_unit(folder, name, text)
        state = run_systemctl("is-enabled", f"{name}.service")
        if state.stdout.strip() == b"enabled":
            return is_changed
        _remove_unit(folder, name)
        answer = (state.stderr or state.stdout).decode(errors="replace").strip()[-200:]
    raise AgentError("not_enabled", f"the user's systemd rejects the unit: {answer}")


def is_systemd_running(system: str = "/") -> bool:
    """Return whether systemd manages the device."""
    return os.path.isdir(os.path.join(system, "run/systemd/system"))


def restart_unit(name: str) -> None:
    """Start or restart a unit; a failure to do so is ignored."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        run_systemctl("daemon-reload")
        run_systemctl("restart", "--no-block", f"{name}.service")


def remove_unit(name: str) -> bool:
    """Remove a unit from every folder where it may be; return whether there was one."""
    try:
        folders = [folder for folder in iter_folders() if _has_unit(folder, name)]
    except KeyError:
        return False  # a user without a name has no units
    for folder in folders:
        _remove_unit(folder, name)
    if folders:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            run_systemctl("daemon-reload")
    return bool(folders)


def _has_unit(folder: str, name: str) -> bool:
    return os.path.lexists(os.path.join(folder, f"{name}.service"))


def is_lingering(system: str = "/") -> bool:
    """Return whether the user's systemd runs from boot on."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False  # a user without a name has no units
    return os.path.exists(os.path.join(system, "var/lib/systemd/linger", user))


def iter_folders() -> Iterator[str]:
    """Yield the folders where the user's systemd may look for units, each once.

    Its environment is its own: XDG_CONFIG_HOME of the login may not be set there.
    """
    home = pwd.getpwuid(os.getuid()).pw_dir
    configs = [
        os.path.expanduser("~/.config"),
        os.environ.get("XDG_CONFIG_HOME", ""),
        os.path.join(home, ".config"),
    ]
    for config in dict.fromkeys(configs):
        if os.path.isabs(config):
            yield os.path.join(config, "systemd", "user")


def _write_unit(folder: str, name: str, text: str) -> bool:
    """Write a unit and the link of ``systemctl --user enable``; return whether one changed."""
    wants = os.path.join(folder, "default.target.wants")
    os.makedirs(wants, exist_ok=True)
    is_changed = write_if_changed(os.path.join(folder, f"{name}.service"), text)
    link = os.path.join(wants, f"{name}.service")
    if not os.path.islink(link):
        os.symlink(os.path.join(os.pardir, f"{name}.service"), link)
        fsync_folder(wants)
        is_changed = True
    return is_changed


def _remove_unit(folder: str, name: str) -> None:
    """Remove a unit and its link, and the folders that held nothing else."""
    wants = os.path.join(folder, "default.target.wants")
    for directory in (wants, folder):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, f"{name}.service"))
    with contextlib.suppress(OSError):
        os.removedirs(wants)


def run_systemctl(
    *arguments: str, timeout_s: float = _TIMEOUT_S
) -> subprocess.CompletedProcess[bytes]:
    """Call systemctl for the user's systemd; a login without PAM lacks its address."""
    environment = {**os.environ, "LC_ALL": "C", "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
    return subprocess.run(
        ["systemctl", "--user", "--no-pager", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


def quote(word: str) -> str:
    """Quote a word of a command line for systemd."""
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(character, escaped)
    return f'"{word}"'
