"""Emulated devices: boot an image, make it known to ``ssh`` and edgekit, and discard it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def skip_without(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def home() -> Path:
    """Return the folder of images and running devices."""
    return Path(os.environ.get("DEVICE_HOME", Path.home() / ".cache/edgekit-devices"))


@contextmanager
def boot(scripts: Path, settings: dict[str, str], cache: Path) -> Iterator[str]:
    """Boot a device and return its name; ``settings`` are those of boot.sh."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    with lock_devices(), pytest.MonkeyPatch.context() as patch:
        script(scripts, f"boot.sh {name}", settings)
        patch.setenv("EDGEKIT_SSH_CONFIG", str(home() / "run" / name / "ssh_config"))
        patch.setenv("EDGEKIT_CACHE", str(cache))
        yield name
        script(scripts, f"stop.sh {name} --power-cut", {})
        shutil.rmtree(home() / "run" / name)


@contextmanager
def lock_devices() -> Iterator[None]:
    """Wait until no other test process runs a device: each takes two cores and half a GiB."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def script(folder: Path, command: str, settings: dict[str, str]) -> None:
    environment = os.environ | {"DEVICE_HOME": str(home())} | settings
    subprocess.run(["bash", "-c", f"{folder}/{command}"], env=environment, check=True, timeout=400)


def edgekit(*arguments: str):
    """Run a command that must succeed, and return its JSON document."""
    command = [sys.executable, "-m", "edgekit", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
