"""A device that gets no confirmation of a new release goes back by itself."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bundle.manifest import RELEASE_DIGITS
from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.confirmation import WatchTerms, confirm
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit.remote.upload import sha256
from edgekit.signing.keys import make_key
from edgekit_agent.boot.watch import read_pending_watch, run_watch
from edgekit_agent.jobs import ConfirmJob, StatusJob
from edgekit_agent.releases.audit import read_last_lines
from edgekit_agent.releases.homes import open_home
from edgekit_agent.releases.install import status
from edgekit_agent.releases.served import current_release, previous_release, switch
from edgekit_agent.releases.store import lock_home
from edgekit_agent.results import ConfirmResult, Health
from tests.builders.projects import edgekit
from tests.builders.servers import make_bundle, running_sshd, sshd
from tests.builders.servers import served as served_by_sshd
from tests.builders.signed import Device, make_signed

__all__ = ["running_sshd", "sshd"]

BY_APP = WatchTerms(seconds=30.0, by_app=True)


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
    """Installs a release whose confirmation is lost, with the link to whoever pushes it."""

    def install(seconds):
        bundle = make_bundle(tmp_path / f"next{seconds}", seed=int(seconds * 10) + 1, width=8)
        with monkeypatch.context() as patch, open_session("local") as session:
            patch.setattr("edgekit.remote.deploy.confirm", lambda *_: None)
            terms = WatchTerms(seconds=seconds)
            return push(bundle, session, cache=device.cache, watch=terms).release

    return install


def watchers(home):
    """Processes that watch a home."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[-3:-1] == ["watch", str(home)]:
                found.append(int(entry.name))
    return found


def served(device):
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


def test_without_a_confirmation_the_device_goes_back_by_itself(device, first, unconfirmed):
    new = unconfirmed(2.0)
    assert served(device) == (new, first)
    wait_until(lambda: not watchers(device.home))
    assert served(device) == (first, new)
    assert log(device)[-1] == ("go back", first, "done")
    assert device.status().watch is None
    with open_session("local") as session, pytest.raises(DeviceError) as caught:
        session.ask(ConfirmJob(session.home, new), ConfirmResult)
    assert caught.value.kind == "not_confirmed"
    assert served(device) == (first, new)


def test_the_push_confirms_at_once(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    started = time.monotonic()
    done = edgekit("push", bundle.path, "local", "--watch", "3600", "--json")
    assert (done.code, time.monotonic() - started < 300) == (0, True), done.err
    (report,) = json.loads(done.out)
    assert (report["previous"], report["watch"]["seconds"]) == (first, 3600)
    assert [action for action, *_ in log(device)][-2:] == ["install", "confirm"]
    wait_until(lambda: not watchers(device.home))
    assert served(device) == (report["release"], first)


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
    with pytest.raises(DeviceError, match="waits for its confirmation") as caught:
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
    assert f"{new} waits for its confirmation" in edgekit("status", "local").out
    (device.home / "confirmed").write_text(f"{first}\n")  # of another release
    time.sleep(1.5)
    assert device.status().watch.release == new
    (device.home / "confirmed").write_text(f"{new}\n")
    wait_until(lambda: not watchers(device.home))
    assert device.status().watch is None
    assert served(device) == (new, first)
    assert log(device)[-1] == ("confirm", new, "done")
    assert not (device.home / "confirmed").exists()


@pytest.mark.sshd
def test_the_device_goes_back_after_the_link_was_lost(sshd, tmp_path, monkeypatch):
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
    assert served(device) == (first, new)


def test_the_push_waits_for_the_app_and_tells_if_it_does_not_confirm(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    done = edgekit("push", bundle.path, "local", "--watch", "3", "--app-confirms")
    assert (done.code, done.out) == (4, "")
    assert f"the device went back to {first}" in done.err
    assert served(device)[0] == first


def test_going_back_by_hand_ends_the_watch(device, first, unconfirmed):
    new = unconfirmed(600.0)
    device.rollback()
    wait_until(lambda: not watchers(device.home))
    assert served(device) == (first, new)


def rebooted(device):
    """The watch as if it were of an earlier boot, and the watcher gone."""
    for pid in watchers(device.home):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not watchers(device.home))
    path = device.home / "watch.json"
    watch = json.loads(path.read_text()) | {"boot": "an earlier one"}
    path.write_text(json.dumps(watch))


def test_after_a_reboot_what_starts_at_boot_goes_back(device, first, unconfirmed):
    new = unconfirmed(600.0)
    rebooted(device)
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert served(device) == (first, new)
    assert log(device)[-1] == ("go back", first, "done")
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert served(device) == (first, new)


def test_the_next_push_goes_back_first_where_nothing_started_at_boot(
    device, first, unconfirmed, tmp_path
):
    new = unconfirmed(600.0)
    rebooted(device)
    report = device.push(make_bundle(tmp_path / "other", seed=77, width=8))
    assert report.previous == first != new


def test_pushing_the_release_again_confirms_it_where_nothing_started_at_boot(
    device, first, unconfirmed, tmp_path
):
    new = unconfirmed(600.0)
    rebooted(device)
    assert edgekit("push", tmp_path / "next600.0", "local").code == 0
    assert served(device) == (new, first)
    assert device.status().watch is None


def test_cut_off_before_the_switch_nothing_changes(device, first, unconfirmed):
    new = unconfirmed(600.0)
    rebooted(device)
    (device.home / "current").unlink()
    (device.home / "current").symlink_to(f"releases/{first}")
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert served(device)[0] == first != new
    assert read_pending_watch(open_home(str(device.home))) is None


def test_it_does_not_go_back_to_a_damaged_or_revoked_release(device, tmp_path):
    old, new = make_key("old"), make_key("new")
    device.trust(old)
    before = device.push(make_signed(tmp_path / "a", old, version=1)).release
    device.trust(new)
    bundle = make_signed(tmp_path / "b", new, seed=1, version=2)
    with open_session("local") as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.remote.deploy.confirm", lambda *_: None)
        terms = WatchTerms(seconds=600)
        after = push(bundle, session, cache=device.cache, watch=terms).release
    device.revoke(old)
    rebooted(device)
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert served(device) == (after, before)
    assert log(device)[-1] == ("go back", before, "revoked_key")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"release": 7}'])
def test_a_damaged_watch_stops_nothing(device, first, text, tmp_path):
    (device.home / "watch.json").write_text(text)
    assert device.status().current.name == first
    assert device.push(make_bundle(tmp_path / "next", seed=1, width=8)).previous == first


def test_a_confirmation_whose_answer_is_lost_is_asked_for_again(device, first, unconfirmed):
    new = unconfirmed(600.0)
    with open_session("local") as session:
        state = device.status()
        ask, asked = session.ask, []

        def losing(job, result, **more):
            answer = ask(job, result, **more)
            asked.append(job)
            if len(asked) == 1:
                raise DeviceError("local: the connection was lost", transient=True)
            return answer

        session.ask = losing
        confirm(session, state, new, WatchTerms(seconds=600), None)
    assert len(asked) == 2
    assert served(device) == (new, first)


def test_a_busy_device_is_asked_to_confirm_until_it_has_time(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    home = open_home(str(device.home))
    with open_session("local") as session:
        ask, held = session.ask, contextlib.ExitStack()

        def while_busy(job, result, **more):
            if isinstance(job, ConfirmJob) and not asked:
                held.enter_context(lock_home(home))
                threading.Timer(4.0, held.close).start()  # longer than the agent itself waits
                asked.append(job)
            return ask(job, result, **more)

        asked, session.ask = [], while_busy
        report = push(bundle, session, cache=device.cache, watch=WatchTerms(seconds=60.0))
    assert (served(device), device.status().watch) == ((report.release, first), None)


def test_a_failure_to_confirm_leaves_the_outcome_open(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    with open_session("local") as session:
        ask = session.ask

        def fail(job, result, **more):
            if isinstance(job, ConfirmJob):
                raise DeviceError("local: the disk failed", kind="disk_failed")
            return ask(job, result, **more)

        session.ask = fail
        with pytest.raises(UnknownStateError, match=f"goes back to {first} within 600 s"):
            push(bundle, session, cache=device.cache, watch=WatchTerms(seconds=600.0))
    assert served(device)[0] != first


def test_where_neither_is_there_the_push_says_so(device, first, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(os.sys.executable).parent}:/nowhere")
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    done = edgekit("push", bundle.path, "local", "--watch", "60")
    assert (done.code, "does not go back by itself" in done.out) == (0, True), done.out
    assert "no cron that knows @reboot runs" in done.out


def test_a_watch_of_an_earlier_version_is_read(device, first, unconfirmed):
    new = unconfirmed(600.0)
    path = device.home / "watch.json"
    watch = json.loads(path.read_text())
    del watch["boot_problem"]
    path.write_text(json.dumps(watch))
    assert device.status().watch.release == new


def test_a_full_disk_does_not_keep_it_from_going_back_later(
    device, first, unconfirmed, monkeypatch
):
    new = unconfirmed(600.0)
    rebooted(device)
    answers = [OSError(errno.ENOSPC, "no space"), OSError(errno.EIO, "no disk")]

    def failing(home, release):
        if answers:
            raise answers.pop()
        switch(home, release)

    monkeypatch.setattr("edgekit_agent.boot.watch.switch", failing)
    monkeypatch.setattr("edgekit_agent.boot.watch._POLL_S", 0.01)
    assert run_watch(str(device.home)) == 0
    assert answers == []
    assert served(device) == (first, new)


def test_terms_that_make_no_sense_are_bad_requests(device):
    for seconds in ("-1", "nan", "inf", "1e9", "soon"):
        assert edgekit("push", "b", "local", "--watch", seconds).code == 2
    assert replace(BY_APP, seconds=1.0).by_app


def going_back(device, first):
    """Do what a watcher does when the time is over."""
    switch(open_home(str(device.home)), first)
    (device.home / "watch.json").unlink()


def test_a_device_that_goes_back_while_it_is_asked_reports_what_it_serves_then(
    device, first, unconfirmed
):
    new = unconfirmed(600.0)

    def healthy(question):
        going_back(device, first)
        return Health(True, 0.0)

    said = status(StatusJob(str(device.home), check=new), healthy)
    assert (said.current.name, said.previous.name, said.health) == (first, new, None)


def test_a_device_that_goes_back_while_the_watch_is_read_does_not_seem_confirmed(
    device, first, unconfirmed, monkeypatch
):
    unconfirmed(600.0)
    gone = []

    def read_late(home):
        if not gone:
            gone.append(going_back(device, first))
        return read_pending_watch(home)

    monkeypatch.setattr("edgekit_agent.releases.install.read_pending_watch", read_late)
    said = status(StatusJob(str(device.home)), None)
    assert (said.current.name, said.watch) == (first, None)
