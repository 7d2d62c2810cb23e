"""Devices with any login shell, and with login scripts that print."""

import shutil
import subprocess
import time

import pytest

from edgekit.errors import DeviceError
from edgekit.remote import session as sessions
from edgekit.remote.session import open_session
from edgekit.remote.ssh.shell_quoting import LONGEST_WORD, quote_for_login_shell
from edgekit_agent.jobs import StatusJob
from edgekit_agent.results import Status
from tests.builders.servers import running_sshd, sshd

__all__ = ["running_sshd", "sshd"]

SHELLS = ("sh", "dash", "bash", "zsh", "ksh", "fish", "tcsh", "bsd-csh", "csh", "busybox sh")
ODD = 'it\'s "mine" $HOME `x` \\n \\\\ !x !! %d ä\tb\n~ * {a,b} # ^a^b\n'
NOISE = {
    "no line end": "printf 'Welcome: '",
    "a welcome": "echo Welcome; echo; echo Last login: never",
    "JSON": """echo '{"edgekit": 1}'; echo '{}'; echo '[1]'; echo 5; echo '{"edgekit": [{}]}'""",
    "a greeting that breaks off": """printf '{"edgekit": {"home'""",
    "deep JSON": "printf '{\"edgekit\": {\"a\":'; yes '[' | head -n 5000 | tr -d '\\n'; echo",
    "odd bytes": "printf '\\033[32mok\\033[0m \\377\\376\\r\\n\\0\\033]0;title\\a'",
    "over 100 lines": "yes 'The quick brown fox' | head -n 5000",
    "on both outputs": "echo out; echo err >&2",
}


def shell(name):
    words = name.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} on this machine")
    return [str(shutil.which(words[0])), *words[1:]]


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("times", [1, 40])
def test_every_shell_passes_a_script_on(name, times):
    text = ODD * times
    quoted = text.replace("'", "'\\''")
    line = quote_for_login_shell(f"printf %s '{quoted}'\nexit 3\n")
    done = subprocess.run([*shell(name), "-c", line], capture_output=True, check=False)
    assert (done.stdout, done.returncode, done.stderr) == (text.encode(), 3, b"")


def test_the_line_is_one_of_plain_ascii_and_short_words():
    line = quote_for_login_shell(ODD * 100)
    assert line.isascii()
    assert line.isprintable()
    assert "!" not in line
    assert max(map(len, line.split("'"))) < LONGEST_WORD + 8


@pytest.mark.sshd
@pytest.mark.parametrize("name", SHELLS)
def test_a_device_is_reached_through_every_shell(sshd, name):
    sshd.environment(f"LOGIN_SHELL='{' '.join(shell(name))}'\n")
    for _ in range(2):  # the agent is laid there, and found there
        with open_session("dev", home='~/it\'s "mine" !') as session:
            assert session.home == str(sshd.home / 'it\'s "mine" !')
            assert session.ask(StatusJob(home=session.home), Status).current is None


@pytest.mark.sshd
@pytest.mark.parametrize("script", NOISE.values(), ids=NOISE.keys())
def test_output_of_login_scripts_does_not_disturb_the_agent(sshd, script):
    sshd.environment(f"{script}\n")
    started = time.monotonic()
    for _ in range(2):
        with open_session("dev") as session:
            assert session.home == str(sshd.edgekit_home)
    assert time.monotonic() - started < sessions.START_S / 2


@pytest.mark.sshd
def test_a_login_script_that_never_stops_printing_is_given_up(sshd, monkeypatch):
    monkeypatch.setattr(sessions, "START_S", 2.0)
    sshd.environment("while :; do echo .; sleep 0.1; done\n")
    started = time.monotonic()
    with (
        pytest.raises(DeviceError, match=r"no answer of the agent|print too much"),
        open_session("dev"),
    ):
        pass
    assert time.monotonic() - started < 30
