"""The command of an app, ``PREFIX/bin/NAME``: a shell script that starts the served release."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys

from edgekit_agent.apps.installed import App, make_public_folder
from edgekit_agent.boot.mounts import find_nearest_folder, forbids_programs
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic, open_regular

_MOST_BYTES = 1 << 16
_MARK = "# This command was installed by edgekit for the app {name}; {name} uninstall removes it."
_TEXT = """\
#!/bin/sh
{mark}
home={home}
script=$home/current/edgekit_agent/apps/start.py
if [ ! -f "$script" ]; then
  if [ "$1" = uninstall ] && [ ! -d "$home" ]; then
    exec rm -f -- {launcher}
  fi
  echo "{name}: not installed completely; run its package file again" >&2
  exit 3
fi
for python in {python} python3; do
  if command -v "$python" >/dev/null 2>&1; then
    exec "$python" -I -B -X utf8 "$script" "$home" "$@"
  fi
done
echo "{name}: there is no python3 on this device" >&2
exit 4
"""


def write_launcher(app: App) -> bool:
    """Write the command, whole or not at all; return whether anything was changed."""
    text = _TEXT.format(
        mark=_MARK.format(name=app.name),
        name=app.name,
        home=shlex.quote(app.home.path),
        launcher=shlex.quote(app.launcher),
        python=shlex.quote(os.path.realpath(sys.executable)),
    )
    data = os.fsencode(text)
    if _read(app.launcher) == data and os.access(app.launcher, os.X_OK):
        return False
    make_public_folder(os.path.dirname(app.launcher))
    with open_atomic(app.launcher) as file:
        os.fchmod(file.fileno(), 0o755)
        file.write(data)
    return True


def check_launcher(app: App) -> None:
    """Check that the command can be written without replacing a file of another program.

    Raises:
        AgentError: ``foreign_file``; ``read_only``: its folder cannot be written; ``noexec``: it
            could not be run there.
    """
    folder = os.path.dirname(app.launcher)
    if not os.path.lexists(app.launcher):
        _check_folder(folder)
    elif not _is_ours(app):
        raise AgentError(
            "foreign_file",
            f"{app.launcher} belongs to another program; nothing was changed",
            hint="rename that file, or choose another folder: --prefix",
        )
    if forbids_programs(folder):
        raise AgentError(
            "noexec",
            f"{folder} is on a file system from which no program may run (noexec)",
            hint="choose another folder: --prefix",
        )


def _check_folder(folder: str) -> None:
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise AgentError(
            "foreign_file",
            f"{folder} is not a folder; nothing was changed",
            hint="rename that file, or choose another folder: --prefix",
        )
    nearest = find_nearest_folder(folder)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise AgentError(
            "read_only",
            f"{nearest} is not writable; nothing was changed",
            hint="make the user who installs the app the owner of this folder",
        )


def _is_ours(app: App) -> bool:
    """Return whether the command is one that ``write_launcher`` wrote."""
    lines = _read(app.launcher).split(b"\n", 2)
    return lines[1:2] == [_MARK.format(name=app.name).encode()]


def remove_launcher(app: App) -> None:
    """Remove the command, if it starts this app and not one in another home."""
    if _is_ours(app) and _read_home(app.launcher) == os.path.realpath(app.home.path):
        os.unlink(app.launcher)


def _read_home(launcher: str) -> str:
    """Return the home that a command states; empty if the command is damaged."""
    text = os.fsdecode(_read(launcher))
    quoted = text.partition("\nhome=")[2].partition("\nscript=")[0]
    with contextlib.suppress(ValueError):
        return os.path.realpath("".join(shlex.split(quoted)))
    return ""


def _read(path: str) -> bytes:
    """Return the bytes of a file; none if it is a link, not a file, or cannot be read."""
    if os.path.islink(path):
        return b""
    try:
        with open_regular(path) as file:
            return file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return b""
