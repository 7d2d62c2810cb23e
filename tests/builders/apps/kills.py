"""Installations that are killed at a chosen time, and what must hold after each."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.builders.apps.device import Device


def kill_install(device: Device, file: Path, seconds: float, *, whole: bool) -> bool:
    """Kill an installation after so many seconds; return whether it still ran.

    Args:
        device: where.
        file: the package file.
        seconds: time from its start.
        whole: kill all of its processes at once, as a power cut does, not the installer alone.
    """
    command = ["sh", file, "--prefix", device.prefix, "--no-start"]
    with device.start(command, start_new_session=True) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            if whole:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.communicate()
            return True
        process.communicate()
        return False


def check_state(device: Device, versions: set[str]) -> str:
    """Check that the app is one of the versions, complete; return which, empty for none."""
    launcher = device.prefix / "bin" / "leaf"
    if not launcher.exists():
        assert "" in versions or device.served() is not None, "the app is gone"
        return ""
    version = device.run("--version").stdout.partition(" ")[2].strip()
    assert version in versions, version
    checked = device.run("check")
    assert checked.returncode == 0, checked.stderr
    return version


def check_leftovers(device: Device) -> None:
    """Check that an installation has removed what killed ones left."""
    names = {path.name for path in device.prefix.rglob("*")}
    assert not {name for name in names if name.startswith(".staging-") or name.endswith(".tmp")}
    runtimes = list((device.apps.parent / "runtimes").iterdir())
    assert len(runtimes) == 1


def measure_install(install: Callable[[], object]) -> float:
    """Return the seconds that an installation takes."""
    begin = time.monotonic()
    install()
    return time.monotonic() - begin
