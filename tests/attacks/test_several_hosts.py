"""Commands for several devices: each is processed, and the worst exit code is returned."""

import json
import subprocess
import sys

import numpy as np
import pytest

from edgekit.cli.render.output import run_on_hosts
from edgekit.errors import DeviceError, ExitCode, UnknownStateError, UserError
from tests.builders import hostile_agent
from tests.builders.servers import get_served, make_bundle, running_sshd, sshd, start_sshd

__all__ = ["running_sshd", "sshd"]


@pytest.fixture(scope="module")
def hostile_sshd(running_sshd, tmp_path_factory):
    server = start_sshd(tmp_path_factory.mktemp("hostile"))
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def hostile(sshd, hostile_sshd, tmp_path, monkeypatch):
    """Return a function that sets the mode of host ``bad``; host ``good`` works."""
    config = sshd.config(tmp_path / "both", host="good")
    bad = hostile_sshd.config(tmp_path / "bad_config", host="bad")
    config.write_text(config.read_text() + bad.read_text())
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))

    def behave(mode):
        hostile_sshd.environment(f"exec {sys.executable} {hostile_agent.__file__} '{mode}'\n")

    return behave


def edgekit(*arguments):
    command = [sys.executable, "-m", "edgekit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.sshd
@pytest.mark.parametrize("mode", ["terminal", "done is text", "deep arrays", "endless line"])
def test_a_hostile_device_is_named_and_the_good_one_is_served(
    hostile, sshd, tmp_path, monkeypatch, mode
):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    hostile(mode)
    bundle = make_bundle(tmp_path / "bundle", width=400)
    done = edgekit("push", bundle.path, "bad", "good", "--json")
    assert done.returncode == ExitCode.DEVICE, done.stderr
    good, bad = json.loads(done.stdout)
    assert good["host"] == "good"
    assert good["release"] == get_served(sshd.edgekit_home)
    assert (bad["host"], bad["exit_code"]) == ("bad", 4)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgekit: ")]
    assert line.startswith("edgekit: bad: ")
    assert done.stderr.replace("\n", "").isprintable()
    assert "Traceback" not in done.stderr


@pytest.mark.sshd
def test_a_refusal_by_the_device_only_is_not_a_user_error(hostile, sshd, tmp_path, monkeypatch):
    """``bench`` ended with 2 where a device called the request wrong; it is asked here as well."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    hostile("our fault")
    bundle = make_bundle(tmp_path / "bundle", width=8)
    done = edgekit("bench", bundle.path, "bad")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (ExitCode.DEVICE, "edgekit: bad: no")
    np.savez(tmp_path / "eval.npz", x=np.zeros((2, 64), np.float32), label=np.array([1, 9]))
    done = edgekit("bench", bundle.path, "good", "--eval", tmp_path / "eval.npz")
    assert done.returncode == ExitCode.BAD_REQUEST
    assert "edgekit: good: label 9 of sample 1 must be from 0 to 7" in done.stderr


def run_hosts(capsys, **ends):
    """Return the exit code and the lines of a command whose hosts end with these errors."""

    def one(host, tick):
        if isinstance(ends[host], Exception):
            raise ends[host]
        return ends[host]

    code = run_on_hosts(list(ends), one, lambda results: "\n".join(results), as_json=False)
    return code, capsys.readouterr()


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], ExitCode.DONE),
        ([DeviceError("a: lost")], ExitCode.DEVICE),
        ([UserError("no such metric")], ExitCode.BAD_REQUEST),
        ([UserError("no such metric"), DeviceError("b: lost")], ExitCode.DEVICE),
        ([DeviceError("a: lost"), UnknownStateError("b: gone")], ExitCode.UNKNOWN_STATE),
        ([UnknownStateError("a: gone"), DeviceError("b: lost")], ExitCode.UNKNOWN_STATE),
    ],
)
def test_the_exit_code_is_that_of_the_worst_result(capsys, errors, code):
    ends = dict(zip("ab", errors, strict=False)) | {"z": "z: served"}
    found, printed = run_hosts(capsys, **ends)
    assert found == code
    assert printed.out == "z: served\n"
    assert [line[:10] for line in printed.err.splitlines()] == [
        f"edgekit: {host}" for host in ends if host != "z"
    ]


def test_an_unexpected_error_of_one_host_is_raised_after_the_others_ran(capsys):
    seen = []

    def one(host, tick):
        seen.append(host)
        if host == "a":
            raise KeyError("oops")
        return f"{host}: served"

    with pytest.raises(KeyError, match="oops"):
        run_on_hosts(["a", "b"], one, "\n".join, as_json=False)
    assert seen == ["a", "b"]
    assert capsys.readouterr().out == "b: served\n"


def test_names_from_outside_reach_the_terminal_as_text(capsys):
    run_on_hosts(
        ["a"], lambda host, tick: "model \x1b[2J\x9b1m\u202e.onnx\tok", "".join, as_json=False
    )
    assert capsys.readouterr().out == "model \\x1b[2J\\x9b1m\\u202e.onnx\tok\n"
