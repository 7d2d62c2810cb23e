"""A connection that is cut after any byte leaves the old or the new release intact."""

import shutil
import time

import pytest

from edgekit.bundle.manifest import RELEASE_DIGITS
from edgekit.errors import DeviceError, ExitCode
from edgekit.remote.deploy import push, rollback
from edgekit.remote.session import Session, open_session
from edgekit.remote.ssh.client import SshTransport
from edgekit.remote.upload import sha256
from tests.builders.servers import (
    agents_below,
    get_served,
    make_bundle,
    make_proxy,
    running_sshd,
    sshd,
)

__all__ = ["running_sshd", "sshd"]
pytestmark = [pytest.mark.sshd, pytest.mark.slow]

CUTS = 6
# How long after the job that installs: it verifies, runs the golden samples, switches, cleans.
LATER_S = (0.2, 0.4, 0.6)


def install(bundle, cache):
    with open_session("dev") as session:
        return push(bundle, session, cache=cache)


def test_a_push_interrupted_anywhere_leaves_a_complete_release_and_the_next_one_succeeds(
    sshd, tmp_path, monkeypatch
):
    cache, home = tmp_path / "cache", sshd.edgekit_home
    old = install(make_bundle(tmp_path / "old", seed=1), cache).release
    with make_proxy(sshd, tmp_path, monkeypatch) as whole:
        shutil.rmtree(home / "agent")
        new = install(make_bundle(tmp_path / "new0", seed=100), cache).release
    assert get_served(home) == new
    seen = {old: 0, "new": 0}
    for i in range(CUTS):
        shutil.rmtree(home / "agent", ignore_errors=True)
        before = get_served(home)
        bundle = make_bundle(tmp_path / f"new{i + 1}", seed=101 + i)
        at = int(whole.carried * (i + 0.5) / CUTS)
        with (
            make_proxy(sshd, tmp_path, monkeypatch, cut_after=at),
            pytest.raises(DeviceError) as caught,
        ):
            install(bundle, cache)
        assert "\n" not in caught.value.message
        assert caught.value.message.startswith("dev: ")
        assert caught.value.transient
        seen["new" if get_served(home) != before else old] += 1
        if i % 2:
            after = install(bundle, cache)
            assert get_served(home) == after.release
    assert seen[old] > CUTS // 2


class CutTransport:
    """``dev``, until so many lines have passed: job lines up, answer lines down.

    The line that the link is cut after went through if it is a job, and is lost if it is an answer.
    Without ``comes_back`` no second connection can be made.
    """

    def __init__(self, at, later_s=0.0, *, comes_back=True):
        self._inner = SshTransport("dev")
        self.name, self.pythons, self.close = "dev", self._inner.pythons, self._inner.close
        self.at, self.later_s, self.comes_back, self.lines = at, later_s, comes_back, []

    def reconnect(self):
        self.close()
        if not self.comes_back:
            raise DeviceError("dev: no answer within 1 s", transient=True)
        self._inner.reconnect()

    def open(self, command):
        stream = self._inner.open(command)
        send, readline = stream.send, stream.readline

        def cut_send(data):
            taken = send(data)
            if bytes(data[:6]) == b'{"job"':
                assert taken == len(data)
                self.passed(bytes(data))
            return taken

        def cut_readline(*limits):
            line = readline(*limits)
            if line and self.passed(line):
                raise DeviceError("dev: the connection was lost: it was cut", transient=True)
            return line

        stream.send, stream.readline = cut_send, cut_readline
        return stream

    def passed(self, line):
        self.lines.append(line)
        if len(self.lines) != self.at:
            return False
        time.sleep(self.later_s)
        self.close()
        return True


def until_cut(work, at, later_s=0.0, *, comes_back=True):
    """The lines that passed, and the error that work on the device ended with, if any."""
    transport = CutTransport(at, later_s, comes_back=comes_back)
    try:
        work(Session(transport))
    except DeviceError as error:
        return transport.lines, error
    else:
        return transport.lines, None
    finally:
        transport.close()


def cuts_of(lines):
    """Every line, then later moments of the install; and the number of the line that installs."""
    installs = next(i for i, line in enumerate(lines, 1) if b'"install"' in line)
    cuts = [(at, 0.0) for at in range(1, len(lines) + 1)]
    return cuts + [(installs, s) for s in LATER_S], installs


def test_the_reported_result_of_a_push_interrupted_after_any_line_is_true(sshd, tmp_path):
    """Done: the new release is served, whole. Failed: the old one is. The next push succeeds."""
    cache, home = tmp_path / "cache", sshd.edgekit_home
    install(make_bundle(tmp_path / "old", seed=1, width=400), cache)
    shutil.rmtree(home / "agent")
    bundle = make_bundle(tmp_path / "new", seed=2, width=400)
    whole, _ = until_cut(lambda s: push(bundle, s, cache=cache), -1)
    cuts, installs = cuts_of(whole)
    done = []
    for number, (at, later_s) in enumerate(cuts):
        shutil.rmtree(home / "agent")
        before = get_served(home)
        bundle = make_bundle(tmp_path / f"new{number}", seed=3 + number, width=400)
        new = sha256(bundle.manifest_bytes)[:RELEASE_DIGITS]
        lines, error = until_cut(lambda s, b=bundle: push(b, s, cache=cache), at, later_s)
        assert len(lines) >= at, "the cut came after the end"
        assert get_served(home) == (before if error else new)
        if error is not None:
            assert error.exit_code == ExitCode.DEVICE
            assert error.message.startswith("dev: ")
            assert error.transient
        done.append(error is None)
        assert install(bundle, cache).release == get_served(home) == new
    assert not any(done[: installs - 1]), "nothing is switched before the job to install"
    assert done[len(whole) - 1], "what was lost is only the word that it is done"


def test_a_device_that_cannot_be_asked_again_is_unknown_and_only_after_the_install(sshd, tmp_path):
    cache, home = tmp_path / "cache", sshd.edgekit_home
    install(make_bundle(tmp_path / "old", seed=1, width=400), cache)
    bundle = make_bundle(tmp_path / "new", seed=2, width=400)
    whole, _ = until_cut(lambda s: push(bundle, s, cache=cache), -1)
    cuts, installs = cuts_of(whole)
    codes = {True: set(), False: set()}
    for number, (at, later_s) in enumerate(cuts[installs - 2 :]):
        before = get_served(home)
        bundle = make_bundle(tmp_path / f"new{number}", seed=3 + number, width=400)
        lines, error = until_cut(
            lambda s, b=bundle: push(b, s, cache=cache), at, later_s, comes_back=False
        )
        is_sent = any(b'"install"' in line for line in lines)
        codes[is_sent].add(error.exit_code if error else ExitCode.DONE)
        assert is_sent or get_served(home) == before
        assert not is_sent or error is None or "edgekit status dev" in error.hint
        install(bundle, cache)
    assert codes[False] == {ExitCode.DEVICE}
    assert ExitCode.UNKNOWN_STATE in codes[True]
    assert ExitCode.DEVICE not in codes[True]


def test_the_reported_result_of_a_rollback_with_a_lost_answer_is_true(sshd, tmp_path):
    cache, home = tmp_path / "cache", sshd.edgekit_home
    for seed in (1, 2):
        install(make_bundle(tmp_path / f"b{seed}", seed=seed, width=400), cache)
    whole, _ = until_cut(rollback, -1)
    for at in range(1, len(whole) + 1):
        before = get_served(home)
        _, error = until_cut(rollback, at)
        assert (get_served(home) == before) == (error is not None)
        assert error is None or error.exit_code == ExitCode.DEVICE
    assert error is None, "what was lost is only the word that it is done"
    _, error = until_cut(rollback, len(whole), comes_back=False)
    assert error.exit_code == ExitCode.UNKNOWN_STATE


@pytest.mark.parametrize(("low_bits", "width"), [(False, 40_000), (True, 240_000)])
def test_data_received_before_the_interruption_is_not_sent_again(
    sshd, tmp_path, monkeypatch, low_bits, width
):
    cache = tmp_path / "cache"
    install(make_bundle(tmp_path / "old", seed=1), cache)
    bundle = make_bundle(tmp_path / "big", seed=2, width=width, low_bits=low_bits)
    sent = bundle.encode_for_transfer("model.onnx")
    assert sent.encoding == "packed"
    total = len(sent.data) + bundle.manifest.file("golden.npz").bytes
    with (
        make_proxy(sshd, tmp_path, monkeypatch, cut_after=int(0.9 * total)),
        pytest.raises(DeviceError, match="connection was lost"),
    ):
        install(bundle, cache)
    # Up to 2 MiB, the window of the channel, were on their way when the link broke.
    assert install(bundle, cache).sent_bytes < 0.5 * total
    assert get_served(sshd.edgekit_home) == sha256(bundle.manifest_bytes)[:RELEASE_DIGITS]


def test_a_link_that_falls_silent_ends_with_an_error(sshd, tmp_path, monkeypatch):
    cache, home = tmp_path / "cache", sshd.edgekit_home
    old = install(make_bundle(tmp_path / "old", seed=1), cache).release
    bundle = make_bundle(tmp_path / "big", seed=2, width=40_000)
    for at in (20_000, 5_000_000):
        with make_proxy(sshd, tmp_path, monkeypatch, stall_after=at):
            started = time.monotonic()
            with pytest.raises(DeviceError, match="no data received for 2 s") as caught:
                patient(bundle, cache)
            assert time.monotonic() - started < 15
        assert caught.value.transient
        assert get_served(home) == old
    new = install(bundle, cache)
    assert get_served(home) == new.release


def patient(bundle, cache):
    transport = SshTransport("dev", stall_s=2.0)
    try:
        session = Session(transport)
        session.start()
        push(bundle, session, cache=cache)
    finally:
        transport.close()


def test_an_agent_killed_during_an_install_does_not_switch(sshd, tmp_path):
    import os
    import signal

    cache, home = tmp_path / "cache", sshd.edgekit_home
    old = install(make_bundle(tmp_path / "old", seed=1), cache).release
    bundle = make_bundle(tmp_path / "new", seed=2)

    def kill(_):
        for pid in agents_below(home):
            os.kill(pid, signal.SIGKILL)

    with open_session("dev") as session:
        with pytest.raises(DeviceError, match=r"^dev: the agent ended by SIGKILL") as caught:
            push(bundle, session, cache=cache, progress=kill)
        assert "\n" not in caught.value.message
        assert get_served(home) == old
        assert push(bundle, session, cache=cache).release == get_served(home)
