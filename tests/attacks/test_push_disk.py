"""Devices with full or read-only disks: one line, and the release stays the same."""

import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from edgekit.config.profile import RuntimeSpec
from edgekit.errors import DeviceError
from edgekit.remote.deploy import ensure_runtime, push, rollback, status
from edgekit.remote.session import open_session
from tests.builders.servers import get_served, make_bundle, running_sshd, sshd

__all__ = ["running_sshd", "sshd"]
pytestmark = pytest.mark.sshd


@pytest.fixture
def disk(sshd, tmp_path):
    """Return a function that mounts edgekit's home on a separate disk with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    sshd.environment(f"export EDGEKIT_HOME={place}/edgekit\n")
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        return place / "edgekit"

    yield mount
    while subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0:
        pass


def assert_refused(bundle, cache, match):
    with (
        pytest.raises(DeviceError, match=match) as caught,
        open_session("dev") as session,
    ):
        push(bundle, session, cache=cache)
    assert caught.value.message.startswith("dev: ")
    assert "\n" not in caught.value.message
    return caught.value


def test_a_full_disk_keeps_what_it_serves(disk, tmp_path):
    home = disk("size=3m")
    with open_session("dev") as session:
        old = push(make_bundle(tmp_path / "old"), session, cache=tmp_path / "cache").release
    assert_refused(
        make_bundle(tmp_path / "big", width=20_000), tmp_path / "cache", "disk space|No space"
    )
    assert get_served(home) == old
    with open_session("dev") as session:
        small = make_bundle(tmp_path / "small", seed=5, width=100)
        assert push(small, session, cache=tmp_path / "cache").release == get_served(home)


def test_a_disk_without_space_for_the_agent_is_reported(disk, tmp_path):
    home = disk("size=40k")
    home.mkdir()
    (home.parent / "filler").write_bytes(bytes(32 << 10))
    assert_refused(make_bundle(tmp_path / "b"), tmp_path / "cache", "cannot .*No space left")


def test_a_disk_that_became_read_only_is_reported(disk, tmp_path):
    home = disk("size=8m")
    with open_session("dev") as session:
        old = push(make_bundle(tmp_path / "old"), session, cache=tmp_path / "cache").release
    subprocess.run(["mount", "-o", "remount,ro", str(home.parent)], check=True)
    error = assert_refused(
        make_bundle(tmp_path / "new", seed=2), tmp_path / "cache", "is not writable"
    )
    assert str(home) in error.message
    assert "EDGEKIT_HOME" in error.hint
    assert get_served(home) == old


@pytest.mark.parametrize("with_agent", [True, False])
def test_status_works_on_a_read_only_disk(disk, tmp_path, with_agent):
    home = disk("size=8m")
    with open_session("dev") as session:
        old = push(make_bundle(tmp_path / "old"), session, cache=tmp_path / "cache").release
        new = push(make_bundle(tmp_path / "new", seed=2), session, cache=tmp_path / "cache").release
    if not with_agent:
        shutil.rmtree(home / "agent")
    subprocess.run(["mount", "-o", "remount,ro", str(home.parent)], check=True)
    with open_session("dev") as session:
        said = status(session)
        assert (said.current.name, said.previous.name) == (new, old)
        assert any(runtime.works for runtime in session.facts().runtimes)
        with pytest.raises(DeviceError, match="is not writable"):
            rollback(session)
    assert get_served(home) == new


def test_an_empty_read_only_disk_serves_nothing(disk, tmp_path):
    home = disk("size=8m")
    subprocess.run(["mount", "-o", "remount,ro", str(home.parent)], check=True)
    with open_session("dev") as session:
        assert status(session).current is None


def test_a_disk_mounted_noexec_is_named_as_the_reason(disk, tmp_path):
    home = disk("size=8m,noexec")
    spec = RuntimeSpec(version=">=1.16")
    with open_session("dev") as session:
        facts = session.facts()
        assert facts.home_is_noexec
        with pytest.raises(DeviceError, match="mounted noexec") as caught:
            ensure_runtime(
                session,
                replace(facts, runtimes=()),
                "onnxruntime",
                spec,
                "1.20.0",
                cache=tmp_path / "cache",
            )
        assert (caught.value.kind, str(home) in caught.value.message) == ("noexec", True)
        # The device's own runtime serves from there all the same.
        release = push(make_bundle(tmp_path / "b"), session, cache=tmp_path / "cache").release
    assert get_served(home) == release
