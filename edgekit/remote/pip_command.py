"""Command line of pip on the host: this Python's own, or one that uv runs."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata, util

from packaging.version import InvalidVersion, Version

from edgekit.errors import UserError

# The oldest pip that is tested; older ones know fewer platform tags.
OLDEST = Version("24.0")


class PipMissing(UserError):
    """There is no pip to download the wheels of a runtime with."""


def find_pip() -> tuple[str, ...]:
    """Return the command that runs pip: ``python -m pip``, or pip in a tool environment of uv.

    uv has no download command of its own.

    Raises:
        PipMissing: Neither a pip that is new enough nor uv is installed.
    """
    own = _find_own_version()
    if own is not None and own >= OLDEST:
        return sys.executable, "-m", "pip"
    uv = shutil.which("uv")
    if uv is not None:
        tool = ("--quiet", "--python", sys.executable, "--from", f"pip>={OLDEST}", "pip")
        return uv, "tool", "run", *tool
    found = f"has pip {own}, which is too old" if own is not None else "has no pip"
    raise PipMissing(
        f"pip {OLDEST} or newer is needed to fetch the runtime for the device: {sys.executable} "
        f"{found}, and uv is not on PATH",
        hint=f"{sys.executable} -m ensurepip --upgrade, or install uv",
    )


def _find_own_version() -> Version | None:
    """Return the version of the pip that this Python can import, if there is one."""
    if util.find_spec("pip") is None:
        return None
    try:
        return Version(metadata.version("pip"))
    except (metadata.PackageNotFoundError, InvalidVersion):
        return None
