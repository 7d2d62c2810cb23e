"""The SSH configuration of a host as OpenSSH itself resolves it (``ssh -G``)."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.errors import DeviceError, first_line

RESOLVE_TIMEOUT_S = 60.0
# The first release with the option -G.
OLDEST_OPENSSH = (6, 8)
# ssh -G joins several file names by spaces and does not quote them.
FILE_LISTS = ("userknownhostsfile", "globalknownhostsfile")
# ssh refuses to run for a user without an entry in the password database (some containers).
NO_USER = "no user exists for uid"


def resolve_by_openssh(
    name: str, *, user: str | None, port: int | None, config: str | None
) -> Mapping[str, tuple[str, ...]] | None:
    """Return the values of each keyword of a host's configuration, by lower-case keyword.

    Args:
        name: the host as the configuration names it.
        user: the login name that the user gave, if any.
        port: the port that the user gave, if any.
        config: a configuration file to read instead of the user's and the system's.

    Returns:
        The values, or None if this machine has no usable OpenSSH.

    Raises:
        DeviceError: the configuration is wrong, or ``ssh -G`` takes too long.
    """
    ssh = _find_openssh(os.environ.get("PATH", ""))
    if ssh is None:
        return None
    command = [ssh, "-G", *(("-F", config) if config else ())]
    command += [*(("-l", user) if user else ()), *(("-p", str(port)) if port else ()), "--", name]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RESOLVE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{name}: ssh -G did not end within {RESOLVE_TIMEOUT_S:g} s",
            hint="a 'Match exec' or a name server in the SSH configuration may hang",
        ) from error
    except OSError:
        return None
    complaint = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0:
        return _parse_output(os.fsdecode(done.stdout))
    if NO_USER in complaint.lower():
        return None
    why = first_line(ValueError(complaint)) or f"ssh -G ended with status {done.returncode}"
    raise DeviceError(f"{name}: invalid SSH configuration: {why}")


@functools.lru_cache(maxsize=4)
def _find_openssh(path: str) -> str | None:
    """Find ``ssh`` on a search path; None if it is not an OpenSSH with the option -G."""
    ssh = shutil.which("ssh", path=path)
    if ssh is None:
        return None
    try:
        done = subprocess.run(
            [ssh, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.match(rb"OpenSSH[\w-]*_(\d+)\.(\d+)", done.stderr or done.stdout)
    recent = version and tuple(map(int, version.groups())) >= OLDEST_OPENSSH
    return ssh if recent else None


def _parse_output(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values = _join_file_names(value.split(" ")) if key in FILE_LISTS else (value,)
        found[key] = (*found.get(key, ()), *values)
    return found


def _join_file_names(words: Sequence[str]) -> tuple[str, ...]:
    """Join words into file names; the longest run of words that names a file is one name."""
    names: list[str] = []
    start = 0
    while start < len(words):
        runs = ((end, " ".join(words[start:end])) for end in range(len(words), start + 1, -1))
        end = next((end for end, name in runs if Path(name).exists()), start + 1)
        names.append(" ".join(words[start:end]))
        start = end
    return tuple(n for n in names if n)
