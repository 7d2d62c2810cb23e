"""A device rolls back by itself if a new release is not confirmed."""

import json
import os
import subprocess
import time

import pytest

from edgekit.bundle.manifest import RELEASE_DIGITS
from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.confirmation import WatchTerms
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit.remote.upload import sha256
from edgekit_agent.boot.watch import read_pending_watch
from edgekit_agent.jobs import ConfirmJob
from edgekit_agent.releases.audit import read_last_lines
from edgekit_agent.releases.homes import open_home
from edgekit_agent.results import ConfirmResult
from tests.builders.projects import edgekit
from tests.builders.servers import get_served as served_by_sshd
from tests.builders.servers import make_bundle, running_sshd, sshd
from tests.builders.watched_device import (
    device,
    first,
    get_served,
    log,
    reboot,
    unconfirmed,
    wait_until,
    watchers,
)

__all__ = ["device", "first", "running_sshd", "sshd", "unconfirmed"]


def test_without_a_confirmation_the_device_rolls_back_by_itself(device, first, unconfirmed):
    new = unconfirmed(2.0)
    assert get_served(device) == (new, first)
    wait_until(lambda: not watchers(device.home))
    assert get_served(device) == (first, new)
    assert log(device)[-1] == ("go back", first, "done")
    assert device.status().watch is None
    with open_session("local") as session, pytest.raises(DeviceError) as caught:
        session.ask(ConfirmJob(session.home, new), ConfirmResult)
    assert caught.value.kind == "not_confirmed"
    assert get_served(device) == (first, new)


def test_the_push_confirms_at_once(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    started = time.monotonic()
    done = edgekit("push", bundle.path, "local", "--watch", "3600", "--json")
    assert (done.code, time.monotonic() - started < 300) == (0, True), done.err
    (report,) = json.loads(done.out)
    assert (report["previous"], report["watch"]["seconds"]) == (first, 3600)
    assert [action for action, *_ in log(device)][-2:] == ["install", "confirm"]
    wait_until(lambda: not watchers(device.home))
    assert get_served(device) == (report["release"], first)


def test_the_first_release_and_the_same_one_again_need_no_confirmation(device, tmp_path):
    bundle = make_bundle(tmp_path / "b", width=8)
    for _ in range(2):
        assert edgekit("push", bundle.path, "local", "--watch", "5").code == 0
        assert device.status().watch is None
        assert watchers(device.home) == []


def test_pushing_an_unconfirmed_release_again_confirms_it(device, first, unconfirmed, tmp_path):
    new = unconfirmed(600.0)
    other = make_bundle(tmp_path / "other", seed=77, width=8)
    before = device.files()
    with pytest.raises(DeviceError, match="must be confirmed within") as caught:
        device.push(other)
    assert (caught.value.kind, caught.value.transient) == ("busy", True)
    assert {n: c for n, c in device.files().items() if n.startswith(("rel", "cur", "prev"))} == {
        n: c for n, c in before.items() if n.startswith(("rel", "cur", "prev"))
    }
    (again,) = json.loads(edgekit("push", tmp_path / "next600.0", "local", "--json").out)
    assert again["release"] == new
    assert device.status().watch is None
    assert device.push(other).previous == new


def test_the_app_confirms_by_a_file(device, first, unconfirmed):
    new = unconfirmed(600.0)
    assert f"{new} is not confirmed yet" in edgekit("status", "local").out
    (device.home / "confirmed").write_text(f"{first}\n")  # of another release
    time.sleep(1.5)
    assert device.status().watch.release == new
    (device.home / "confirmed").write_text(f"{new}\n")
    wait_until(lambda: not watchers(device.home))
    assert device.status().watch is None
    assert get_served(device) == (new, first)
    assert log(device)[-1] == ("confirm", new, "done")
    assert not (device.home / "confirmed").exists()


@pytest.mark.sshd
def test_the_device_rolls_back_after_the_connection_was_lost(sshd, tmp_path, monkeypatch):
    old = make_bundle(tmp_path / "old", width=8)
    new = make_bundle(tmp_path / "new", seed=1, width=8)
    with open_session("dev") as session:
        push(old, session, cache=tmp_path / "cache")

    def cut(session, *_):
        session.close()
        raise UnknownStateError("dev: the connection was lost")

    monkeypatch.setattr("edgekit.remote.deploy.confirm", cut)
    with open_session("dev") as session, pytest.raises(UnknownStateError):
        push(new, session, cache=tmp_path / "cache", watch=WatchTerms(seconds=3.0))
    home = sshd.edgekit_home
    wait_until(lambda: not watchers(home))
    assert served_by_sshd(home) == sha256(old.manifest_bytes)[:RELEASE_DIGITS]
    lines = read_last_lines(open_home(str(home)), 1)
    assert (lines[0].action, lines[0].client) == ("go back", "127.0.0.1")


@pytest.mark.sshd
def test_over_ssh_a_push_is_watched_and_confirmed_unless_told_otherwise(sshd, tmp_path):
    told = []
    for number, more in enumerate([(), (), ("--watch", "0")]):
        bundle = make_bundle(tmp_path / f"b{number}", seed=number, width=8)
        (report,) = json.loads(edgekit("push", bundle.path, "dev", "--json", *more).out)
        told.append(report["watch"] and report["watch"]["seconds"])
    assert told == [None, 30.0, None]
    home = sshd.edgekit_home
    wait_until(lambda: not watchers(home))
    lines = read_last_lines(open_home(str(home)), 9)
    assert [line.action for line in lines] == ["install", "install", "confirm", "install"]
    assert (home / "watch.pyz").stat().st_mode & 0o777 == 0o600
    assert not (home / "watch.json").exists()


def test_a_pipe_in_place_of_the_confirmation_is_not_waited_for(device, first, unconfirmed):
    new = unconfirmed(3.0)
    os.mkfifo(device.home / "confirmed")
    wait_until(lambda: not watchers(device.home))
    assert get_served(device) == (first, new)


def test_the_push_waits_for_the_app_and_reports_a_missing_confirmation(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    done = edgekit("push", bundle.path, "local", "--watch", "3", "--app-confirms")
    assert (done.code, done.out) == (4, "")
    assert f"the device rolled back to {first}" in done.err
    assert get_served(device)[0] == first


def test_a_rollback_by_hand_ends_the_watch(device, first, unconfirmed):
    new = unconfirmed(600.0)
    device.rollback()
    wait_until(lambda: not watchers(device.home))
    assert get_served(device) == (first, new)


def test_after_a_reboot_the_watcher_rolls_back(device, first, unconfirmed):
    new = unconfirmed(600.0)
    reboot(device)
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert get_served(device) == (first, new)
    assert log(device)[-1] == ("go back", first, "done")
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert get_served(device) == (first, new)


def test_without_a_watcher_at_boot_the_next_push_rolls_back_first(
    device, first, unconfirmed, tmp_path
):
    new = unconfirmed(600.0)
    reboot(device)
    report = device.push(make_bundle(tmp_path / "other", seed=77, width=8))
    assert report.previous == first != new


def test_without_a_watcher_at_boot_pushing_the_release_again_confirms_it(
    device, first, unconfirmed, tmp_path
):
    new = unconfirmed(600.0)
    reboot(device)
    assert edgekit("push", tmp_path / "next600.0", "local").code == 0
    assert get_served(device) == (new, first)
    assert device.status().watch is None


def test_an_install_interrupted_before_the_switch_changes_nothing(device, first, unconfirmed):
    new = unconfirmed(600.0)
    reboot(device)
    (device.home / "current").unlink()
    (device.home / "current").symlink_to(f"releases/{first}")
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert get_served(device)[0] == first != new
    assert read_pending_watch(open_home(str(device.home))) is None
