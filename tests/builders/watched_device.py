"""A device on this machine with an unconfirmed release, for tests of the watch."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from edgekit.remote.confirmation import WatchTerms
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit_agent.releases.audit import read_last_lines
from edgekit_agent.releases.current import current_release, previous_release
from edgekit_agent.releases.homes import open_home
from tests.builders.servers import make_bundle
from tests.builders.signed import Device


@pytest.fixture
def device(tmp_path, monkeypatch):
    for name in ("config", "home", "cache"):
        monkeypatch.setenv(f"EDGEKIT_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    yield Device(home=tmp_path / "home", cache=tmp_path / "cache")
    for pid in watchers(tmp_path / "home"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def first(device, tmp_path):
    """The release that was served before."""
    return device.push(make_bundle(tmp_path / "first", width=8)).release


@pytest.fixture
def unconfirmed(device, first, tmp_path, monkeypatch):
    """Install a release whose confirmation is lost, as the connection is cut."""

    def install(seconds):
        bundle = make_bundle(tmp_path / f"next{seconds}", seed=int(seconds * 10) + 1, width=8)
        with monkeypatch.context() as patch, open_session("local") as session:
            patch.setattr("edgekit.remote.deploy.confirm", lambda *_: None)
            terms = WatchTerms(seconds=seconds)
            return push(bundle, session, cache=device.cache, watch=terms).release

    return install


def watchers(home):
    """Return the processes that watch a home."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[-3:-1] == ["watch", str(home)]:
                found.append(int(entry.name))
    return found


def get_served(device):
    home = open_home(str(device.home))
    return current_release(home), previous_release(home)


def wait_until(true, seconds=40.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def log(device):
    lines = read_last_lines(open_home(str(device.home)), 5)
    return [(line.action, line.release, line.result.partition(":")[0]) for line in lines]


def reboot(device):
    """Change the watch to that of an earlier boot, and end the watcher."""
    for pid in watchers(device.home):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not watchers(device.home))
    path = device.home / "watch.json"
    watch = json.loads(path.read_text()) | {"boot": "an earlier one"}
    path.write_text(json.dumps(watch))
