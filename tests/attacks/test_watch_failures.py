"""The watch over a new release with damaged files, lost answers or a full disk."""

import contextlib
import errno
import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.confirmation import WatchTerms, confirm
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit.signing.keys import make_key
from edgekit_agent.boot.watch import read_pending_watch, run_watch
from edgekit_agent.jobs import ConfirmJob, StatusJob
from edgekit_agent.releases.current import switch
from edgekit_agent.releases.homes import open_home
from edgekit_agent.releases.install import status
from edgekit_agent.releases.store import lock_home
from edgekit_agent.worker_results import Health
from tests.builders.projects import edgekit
from tests.builders.servers import make_bundle
from tests.builders.signed import make_signed
from tests.builders.watched_device import (
    device,
    first,
    get_served,
    log,
    reboot,
    unconfirmed,
)

__all__ = ["device", "first", "unconfirmed"]

BY_APP = WatchTerms(seconds=30.0, by_app=True)


def test_it_does_not_roll_back_to_a_damaged_or_revoked_release(device, tmp_path):
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
    reboot(device)
    subprocess.run(["/bin/sh", device.home / "watch.sh"], check=True, timeout=60)
    assert get_served(device) == (after, before)
    assert log(device)[-1] == ("go back", before, "revoked_key")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"release": 7}'])
def test_a_damaged_watch_blocks_nothing(device, first, text, tmp_path):
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
    assert get_served(device) == (new, first)


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
    assert (get_served(device), device.status().watch) == ((report.release, first), None)


def test_a_failed_confirmation_is_an_unknown_state(device, first, tmp_path):
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    with open_session("local") as session:
        ask = session.ask

        def fail(job, result, **more):
            if isinstance(job, ConfirmJob):
                raise DeviceError("local: the disk failed", kind="disk_failed")
            return ask(job, result, **more)

        session.ask = fail
        with pytest.raises(UnknownStateError, match=f"rolls back to {first} within 600 s"):
            push(bundle, session, cache=device.cache, watch=WatchTerms(seconds=600.0))
    assert get_served(device)[0] != first


def test_without_systemd_and_cron_the_push_adds_a_note(device, first, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(os.sys.executable).parent}:/nowhere")
    bundle = make_bundle(tmp_path / "next", seed=1, width=8)
    done = edgekit("push", bundle.path, "local", "--watch", "60")
    assert (done.code, "does not roll back by itself" in done.out) == (0, True), done.out
    assert "no running cron supports @reboot" in done.out


def test_a_watch_of_an_earlier_version_is_read(device, first, unconfirmed):
    new = unconfirmed(600.0)
    path = device.home / "watch.json"
    watch = json.loads(path.read_text())
    del watch["boot_problem"]
    path.write_text(json.dumps(watch))
    assert device.status().watch.release == new


def test_a_full_disk_only_delays_the_rollback(device, first, unconfirmed, monkeypatch):
    new = unconfirmed(600.0)
    reboot(device)
    answers = [OSError(errno.ENOSPC, "no space"), OSError(errno.EIO, "no disk")]

    def failing(home, release):
        if answers:
            raise answers.pop()
        switch(home, release)

    monkeypatch.setattr("edgekit_agent.boot.watch.switch", failing)
    monkeypatch.setattr("edgekit_agent.boot.watch._POLL_S", 0.01)
    assert run_watch(str(device.home)) == 0
    assert answers == []
    assert get_served(device) == (first, new)


def test_invalid_watch_settings_are_refused(device):
    for seconds in ("-1", "nan", "inf", "1e9", "soon"):
        assert edgekit("push", "b", "local", "--watch", seconds).code == 2
    assert replace(BY_APP, seconds=1.0).by_app


def going_back(device, first):
    """Do what the watcher does when its time is over."""
    switch(open_home(str(device.home)), first)
    (device.home / "watch.json").unlink()


def test_a_device_that_rolls_back_during_a_request_reports_what_it_serves(
    device, first, unconfirmed
):
    new = unconfirmed(600.0)

    def healthy(question):
        going_back(device, first)
        return Health(True, 0.0)

    said = status(StatusJob(str(device.home), check=new), healthy)
    assert (said.current.name, said.previous.name, said.health) == (first, new, None)


def test_a_device_that_rolls_back_while_the_watch_is_read_is_not_confirmed(
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
