"""Sessions with an agent: start, jobs, failures and limits."""

import os
import signal
import subprocess
import sys
from importlib import resources

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.agent_file import pack_agent
from edgekit.remote.local import LocalTransport
from edgekit.remote.session import Session, open_session
from edgekit_agent.jobs import PlanJob, ReceiveJob, StatusJob
from edgekit_agent.results import Plan, ReceiveResult, Status
from edgekit_agent.worker_jobs import Blob
from tests.builders.servers import agents_below


def one_line(caught):
    assert "\n" not in caught.value.message
    assert "Traceback" not in str(caught.value)
    return caught.value.message


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("EDGEKIT_HOME", raising=False)
    return tmp_path / "data/edgekit"


def test_this_machine_is_a_device_too(home):
    with open_session("local") as session:
        facts = session.facts()
        assert session.home == str(home)
        assert facts.python == ".".join(map(str, sys.version_info[:3]))
        first = session.bytes_sent
    laying = resources.files("edgekit.remote").joinpath("bootstrap.py").read_bytes()
    assert first > len(pack_agent().data) + len(laying)
    with open_session("local") as session:
        session.facts()
        assert 500 < session.bytes_sent < 1000, "the command that starts the agent counts"


def test_all_bytes_sent_to_the_device_are_counted(home):
    transport = Tapped()
    try:
        session = Session(transport)
        for _ in range(2):
            session.facts()
            session.close()
        assert session.bytes_sent == transport.taken
    finally:
        transport.close()


def test_one_agent_answers_many_jobs_and_failures_in_between(home):
    with open_session("local") as session:
        for _ in range(3):
            assert session.ask(StatusJob(home=session.home), Status).current is None
            with pytest.raises(DeviceError, match=r"local: .*not a sha256"):
                session.ask(PlanJob(session.home, (Blob("x", 1, "x", 1, "raw"),)), Plan)


def test_a_damaged_agent_on_the_device_is_replaced(home):
    with open_session("local"):
        pass
    (agent,) = (home / "agent").iterdir()
    agent.write_bytes(b"half")
    with open_session("local") as session:
        session.facts()
    assert agent.read_bytes() == pack_agent().data


def test_what_starts_the_agent_never_runs_another_one(home):
    with open_session("local"):
        pass
    (agent,) = (home / "agent").iterdir()
    agent.write_bytes(agent.read_bytes() + b"more")
    with open_session("local") as session:
        assert session.bytes_sent > len(pack_agent().data)
        session.facts()


def test_the_agent_file_is_the_same_wherever_it_is_built():
    code = "from edgekit.remote.agent_file import pack_agent; print(pack_agent().digest)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == pack_agent().digest


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        (None, "", "data/edgekit"),
        (None, "{}/given", "given"),
        ("{}/env", "{}/given", "env"),
        (None, "~/given", "given"),
        ("env/deep", "", "env/deep"),
        (None, 'it\'s "mine"', 'it\'s "mine"'),
    ],
)
def test_the_home_is_the_devices_choice_then_the_profiles(
    home, tmp_path, monkeypatch, environment, given, expected
):
    monkeypatch.setenv("HOME", str(tmp_path))
    if environment:
        monkeypatch.setenv("EDGEKIT_HOME", environment.format(tmp_path))
    for most in (1 << 20, 1000):
        with open_session("local", home=given.format(tmp_path)) as session:
            assert session.home == str(tmp_path / expected)
            assert session.bytes_sent < most, "the agent that is there is found"


def test_a_home_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot create edgekit's folder") as caught:
        open_session("local", home=str(tmp_path / "file/home")).__enter__()
    assert str(tmp_path / "file/home") in one_line(caught)


def test_a_killed_agent_causes_one_line_and_the_next_job_starts_another(home):
    with open_session("local") as session:
        session.facts()
        first = agents_below(home)
        assert len(first) == 1
        os.kill(first[0], signal.SIGKILL)
        with pytest.raises(DeviceError, match=r"agent ended by SIGKILL|closed its input") as caught:
            session.facts()
        one_line(caught)
        session.facts()


def test_nothing_outlives_the_session(home):
    with open_session("local") as session:
        session.facts()
        assert agents_below(home)
    assert not agents_below(home)


def test_an_early_answer_ends_the_upload(home):
    """The job is refused at once; the gigabytes behind it stay here."""
    pieces = iter(lambda: bytes(1 << 20), b"")
    with open_session("local") as session:
        blob = Blob("0" * 64, 1 << 40, "0" * 64, 1 << 40, "raw")
        with pytest.raises(DeviceError, match="disk space"):
            session.ask(ReceiveJob(session.home, (blob,), (0,)), ReceiveResult, payload=pieces)
        assert session.bytes_sent < 64 << 20
        session.facts()


class Tapped(LocalTransport):
    """A transport that counts the bytes sent to the device."""

    taken = 0

    def open(self, command):
        stream = super().open(command)
        self.taken += len(command)
        send = stream.send

        def tapped(data):
            count = send(data)
            self.taken += count
            return count

        stream.send = tapped
        return stream


class Stranger(LocalTransport):
    """A device on which another program answers."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def open(self, command):
        return super().open(self.script)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "ended with status 3"),
        ("echo oh no >&2; exit 1", "oh no"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("while :; do echo noise; done", "print too much"),
        ('echo \'{"edgekit": {"python": false}}\'', "no Python 3.9"),
        (
            'echo hello; echo \'{"edgekit": {"home": "/h"}}\'; echo what',
            "unexpected output of the agent",
        ),
        (
            'echo \'{"edgekit": {"home": "/h"}}\'; echo \'{"result": {}}\'; cat',
            "invalid answer of the agent",
        ),
    ],
)
def test_any_wrong_answer_causes_one_line(script, message):
    transport = Stranger(script)
    try:
        session = Session(transport)
        with pytest.raises(DeviceError, match=message) as caught:
            session.facts()
        one_line(caught)
    finally:
        transport.close()


def test_a_silent_agent_is_abandoned(home):
    transport = Stranger('echo \'{"edgekit": {"home": "/h"}}\'; cat >/dev/null')
    try:
        session = Session(transport)
        with pytest.raises(DeviceError, match=r"no answer of the agent for 0\.3 s"):
            session.ask(StatusJob(home="/h"), Status, silence_s=0.3)
    finally:
        transport.close()
