"""Host and agent of other protocol versions: one minor version apart, they work together."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from edgekit.remote.agent_file import MAIN, AgentFile
from edgekit_agent.protocol import PROTOCOL
from tests.builders.metrics.ragged_projects import write_ragged_project
from tests.builders.projects import edgekit, write_tiny

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "old"
BUNDLE = OLD / "plain"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="built for x86-64")


@pytest.fixture
def brings(tmp_path, monkeypatch):
    """Make the host bring another agent to ``local``, whose home is empty."""
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "device"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))

    def bring(data: bytes) -> None:
        agent = AgentFile(data=data, digest=hashlib.sha256(data).hexdigest())
        for module in ("session", "start_commands"):
            monkeypatch.setattr(f"edgekit.remote.{module}.pack_agent", lambda: agent)

    return bring


def patched_agent(folder, version, *edits):
    """The real agent with another version of the protocol, and edits of its sources."""
    package = folder / "agent" / "edgekit_agent"
    shutil.copytree(
        ROOT / "targets" / "edgekit_agent", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    major, minor = version
    present = f"PROTOCOL = Version({PROTOCOL.major}, {PROTOCOL.minor})"
    for name, old, new in (
        ("protocol.py", present, f"PROTOCOL = Version({major}, {minor})"),
        *edits,
    ):
        text = (package / name).read_text()
        assert text.count(old) == 1, (name, old)
        (package / name).write_text(text.replace(old, new))
    (package.parent / "__main__.py").write_text(MAIN)
    zipapp.create_archive(package.parent, folder / "agent.pyz")
    return (folder / "agent.pyz").read_bytes()


def push():
    return edgekit("push", BUNDLE, "local", "--watch", "0", "--json")


LOG = "    log: Tuple[AuditLine, ...] = ()\n"
NOEXEC = "    home_is_noexec: bool = False"
SAID = '{"stage": stage, "done": done, "total": total}'
MORE_FIELDS = (
    ("results.py", LOG, f"    battery_percent: int = 80\n{LOG}"),
    ("results.py", NOEXEC, f"    slots: Tuple[str, ...] = ('a',)\n{NOEXEC}"),
    ("wire.py", SAID, SAID.replace("}", ', "eta_s": 2.0}')),
)
FEWER_FIELDS = (
    ("results.py", f"{NOEXEC}  # no library can be loaded from there\n", ""),
    ("measure/probe.py", "        home_is_noexec=is_noexec(open_home(home)),\n", ""),
    ("jobs.py", "    log: int = 0\n", ""),
    ("releases/install.py", "read_last_lines(home, job.log)", "()"),
)


def test_the_fields_of_a_newer_minor_version_are_ignored(brings, tmp_path):
    brings(patched_agent(tmp_path, (PROTOCOL.major, PROTOCOL.minor + 1), *MORE_FIELDS))
    done = push()
    assert done.code == 0, done.err
    assert edgekit("status", "local").code == 0


def test_without_the_newer_version_such_fields_are_an_error(brings, tmp_path):
    brings(patched_agent(tmp_path, (PROTOCOL.major, PROTOCOL.minor), *MORE_FIELDS))
    done = edgekit("status", "local")
    assert done.code == 4
    assert "unknown field battery_percent" in done.err


def test_the_fields_that_an_older_minor_version_lacks_have_their_defaults(brings, tmp_path):
    brings(patched_agent(tmp_path, (PROTOCOL.major, PROTOCOL.minor - 1), *FEWER_FIELDS))
    done = push()
    assert done.code == 0, done.err
    assert edgekit("status", "local", "--log").code == 0


def test_the_agent_of_version_0_1_gets_what_it_understands(brings):
    (agent,) = (OLD / "home" / "agent").glob("*.pyz")
    brings(agent.read_bytes())
    done = push()
    assert done.code == 0, done.err
    (facts,) = json.loads(edgekit("status", "local", "--json").out)
    assert facts["current"]["golden_samples"] == "canaries.npz"
    assert edgekit("bench", BUNDLE, "local").code in (0, 2)


def test_the_agent_of_version_0_1_scores_top1_and_refuses_other_metrics(brings, tmp_path):
    (agent,) = (OLD / "home" / "agent").glob("*.pyz")
    brings(agent.read_bytes())
    folder = write_tiny(tmp_path / "tiny", samples=40)
    data = ("-C", folder, "--eval", folder / "eval.npz", "--json")
    known = edgekit("bench", folder / "model.onnx", "local", *data, "--metric", "top1")
    other = edgekit("bench", folder / "model.onnx", "local", *data, "--metric", "log-loss")
    assert known.code == 0, known.err
    assert other.code == 4, other.err
    assert "agent of protocol 1.0 cannot score log-loss" in other.err


def test_the_agent_of_version_0_1_gets_no_samples_of_different_sizes(brings, tmp_path):
    (agent,) = (OLD / "home" / "agent").glob("*.pyz")
    brings(agent.read_bytes())
    write_ragged_project(tmp_path)
    done = edgekit("bench", tmp_path / "model.onnx", "local", "-C", tmp_path, "--eval", "eval.npz")
    assert done.code == 4, done
    assert "its agent of protocol 1.0 cannot run samples of different sizes" in done.err


@pytest.mark.parametrize(
    ("version", "where"),
    [
        ((PROTOCOL.major, PROTOCOL.minor + 2), "on this machine"),
        ((PROTOCOL.major + 1, 0), "on this machine"),
        ((PROTOCOL.major - 1, 9), "on the device"),
    ],
)
def test_an_agent_of_another_version_is_refused_in_one_line(brings, tmp_path, version, where):
    brings(patched_agent(tmp_path, version))
    done = push()
    assert done.code == 4
    (line,) = [line for line in done.err.splitlines() if line.startswith("edgekit: ")]
    assert "protocol {}.{}".format(*version) in line
    assert str(PROTOCOL) in line
    assert line.endswith(f"upgrade edgekit {where}")
    assert "Traceback" not in done.err


# ---------------------------------------------------------------- the side of the device


def ask_agent(home, *messages):
    """The answers of the real agent to lines as a host sends them."""
    lines = "".join(json.dumps(each) + "\n" for each in messages)
    done = subprocess.run(
        [sys.executable, "-m", "edgekit_agent"],
        input=lines, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def job(home, version=None, **more):
    message = {"job": "status", "settings": {"home": str(home), **more}}
    return message if version is None else {**message, "protocol": version}


def next_minor(by):
    return f"{PROTOCOL.major}.{PROTOCOL.minor + by}"


def test_the_agent_ignores_what_only_a_newer_minor_version_knows(tmp_path):
    newer, same = ask_agent(
        tmp_path, job(tmp_path, next_minor(1), tone=1), job(tmp_path, next_minor(0), tone=1)
    )
    assert newer["result"]["current"] is None
    assert "unknown field tone" in same["error"]["message"]


def test_the_agent_answers_a_host_that_states_no_version_with_the_names_of_then(tmp_path):
    home = tmp_path / "home"
    shutil.copytree(OLD / "home", home, symlinks=True)
    then, now = ask_agent(home, job(home), job(home, str(PROTOCOL)))
    assert then["result"]["current"]["canaries"] == "canaries.npz"
    assert now["result"]["current"]["golden_samples"] == "canaries.npz"
    assert now["protocol"] == str(PROTOCOL)


@pytest.mark.parametrize(
    ("version", "where"),
    [
        (next_minor(2), "on the device"),
        (f"{PROTOCOL.major + 1}.0", "on the device"),
        (f"{PROTOCOL.major - 1}.9", "on the machine that connects to it"),
    ],
)
def test_the_agent_refuses_a_host_of_another_version_in_one_line(tmp_path, version, where):
    (answer,) = ask_agent(tmp_path, job(tmp_path, version))
    assert answer["error"]["kind"] == "protocol"
    message = answer["error"]["message"]
    assert version in message
    assert str(PROTOCOL) in message
    assert message.endswith(f"upgrade edgekit {where}")
    assert "\n" not in message


@pytest.mark.parametrize("version", ["", "1", "1.x", "1.1.1", 1.1e9, None, ["1.1"], "9" * 400])
def test_what_is_no_version_is_no_job(tmp_path, version):
    (answer,) = ask_agent(tmp_path, {**job(tmp_path), "protocol": version})
    assert answer["error"]["kind"] == "bad_job"


# ---------------------------------------------------------------- releases with names

BEFORE_NAMES = (
    ("codec.py", '    "uninstall": "edgekit_agent.jobs:UninstallJob",\n', ""),
    (
        "jobs.py",
        '    wait_s: float = 0.0\n    app: str = field(default="", metadata=mark_added())\n',
        "    wait_s: float = 0.0\n",
    ),
)
NAMED = [
    ("push", BUNDLE, "local", "--watch", "0", "--name", "door"),
    ("status", "local", "--name", "door"),
    ("rollback", "local", "--name", "door"),
    ("uninstall", "local", "door"),
]


@pytest.mark.parametrize("command", NAMED, ids=lambda command: command[0])
@pytest.mark.parametrize("version", ["0.1", "before names"])
def test_an_agent_older_than_names_is_refused_in_one_line(brings, tmp_path, version, command):
    (first,) = (OLD / "home" / "agent").glob("*.pyz")
    older = version == "before names"
    present = (PROTOCOL.major, PROTOCOL.minor)
    brings(patched_agent(tmp_path, present, *BEFORE_NAMES) if older else first.read_bytes())
    done = edgekit(*command)
    assert done.code == 4, done
    (line,) = [line for line in done.err.splitlines() if line.startswith("edgekit: ")]
    assert "its agent is older than releases with names (--name): upgrade edgekit on" in line
    assert not (tmp_path / "device" / "current").exists()
    assert not (tmp_path / "device" / "apps").exists()
