"""Connections to a real SSH server: hosts, keys, agents, jump hosts and failures."""

import getpass
import shutil
import subprocess
import time

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.session import open_session
from edgekit.remote.ssh.client import SshTransport
from edgekit_agent.jobs import StatusJob
from edgekit_agent.results import Status
from tests.builders.servers import Proxy, free_port, make_key

pytestmark = pytest.mark.sshd


@pytest.fixture
def use(sshd, tmp_path, monkeypatch):
    """Reach ``dev`` with other settings."""

    def use(**settings):
        config = sshd.config(tmp_path / "config", **settings)
        monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))
        return config

    return use


def assert_refused(host="dev"):
    with pytest.raises(DeviceError) as caught:
        SshTransport(host)
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"{host}: ")
    return caught.value


def read_error(transport, command="echo hello"):
    try:
        return transport.open(command).readline(10)
    finally:
        transport.close()


def test_a_command_runs_on_the_host(sshd):
    transport = SshTransport("dev")
    stream = transport.open("read line; echo \"got '$line'\"; echo bad >&2; exit 7")
    assert stream.send(memoryview(b"it's\n")) == 5
    assert stream.readline(10) == b"got 'it's'\n"
    assert stream.readline(10) == b""
    assert (stream.stderr_tail(), stream.wait(5)) == ("bad", 7)
    transport.close()


def test_user_and_port_may_be_given_beside_the_address(sshd, use):
    use(host="127.0.0.1", Port=1, User="nobody-here")
    host = f"{getpass.getuser()}@127.0.0.1:{sshd.port}"
    known = sshd.known_line()
    use(host="127.0.0.1", Port=1, User="nobody-here", known=known)
    assert read_error(SshTransport(host)) == b"hello\n"


def test_an_unknown_host_is_refused(sshd, use):
    use(known="")
    error = assert_refused()
    assert "unknown: ssh-ed25519 SHA256:" in error.message
    assert f"ssh-keyscan -p {sshd.port} -t ed25519 127.0.0.1 >> " in error.hint


def test_the_command_in_the_hint_accepts_the_host(sshd, use):
    use(known="")
    command = assert_refused().hint.partition("accept it: ")[2]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert read_error(SshTransport("dev")) == b"hello\n"


def test_a_changed_key_is_refused(sshd, use, tmp_path):
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    use(known=f"[127.0.0.1]:{sshd.port} {other}")
    assert "has changed" in assert_refused().message


def test_a_revoked_key_is_refused(sshd, use):
    use(known=sshd.known_line() + f"@revoked * {sshd.public_key()}\n")
    assert "@revoked" in assert_refused().message


def test_a_host_known_by_another_key_type_is_known(sshd, use):
    use(known=f"[127.0.0.1]:{sshd.port} {sshd.public_key('host_ecdsa')}\n")
    assert read_error(SshTransport("dev")) == b"hello\n"


def test_a_key_kept_under_an_alias_is_found(sshd, use):
    use(known=f"robot {sshd.public_key()}\n", HostKeyAlias="robot")
    assert read_error(SshTransport("dev")) == b"hello\n"


def test_the_second_known_hosts_file_is_also_used(sshd, use, tmp_path):
    (tmp_path / "more").write_text(sshd.known_line())
    use(known="", UserKnownHostsFile=f"{tmp_path}/absent {tmp_path}/more")
    assert read_error(SshTransport("dev")) == b"hello\n"


def test_an_unknown_key_is_named(sshd, use, tmp_path):
    use(IdentityFile=make_key(tmp_path / "stranger"))
    error = assert_refused()
    assert f"login as {getpass.getuser()} refused: tried {tmp_path}/stranger" in error.message
    assert not error.transient


def test_a_key_with_a_passphrase_is_skipped(sshd, use, tmp_path):
    use(IdentityFile=make_key(tmp_path / "locked", passphrase="secret"))
    assert "has a passphrase" in assert_refused().message


def test_a_missing_key_is_reported(sshd, use, tmp_path):
    use(IdentityFile=tmp_path / "absent")
    assert "no key" in assert_refused().message


def test_the_next_identity_is_tried_and_a_damaged_one_is_skipped(sshd, use, tmp_path):
    (tmp_path / "damaged").write_text("not a key")
    stranger = make_key(tmp_path / "stranger")
    config = use(IdentityFile=tmp_path / "damaged")
    with config.open("a") as file:
        file.write(f"  IdentityFile {stranger}\n  IdentityFile {sshd.folder}/key\n")
    assert read_error(SshTransport("dev")) == b"hello\n"


@pytest.fixture
def agent(sshd, tmp_path):
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent on this machine")
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    while not socket.exists():
        time.sleep(0.01)
    subprocess.run(
        ["ssh-add", "-q", str(sshd.folder / "key")],
        check=True,
        capture_output=True,
        env={"SSH_AUTH_SOCK": str(socket)},
    )
    yield socket
    process.terminate()
    process.wait()


def test_a_key_of_the_ssh_agent_is_used(sshd, use, agent, tmp_path):
    use(IdentityFile=tmp_path / "absent", IdentitiesOnly="no", IdentityAgent=agent)
    assert read_error(SshTransport("dev")) == b"hello\n"
    use(IdentityFile=tmp_path / "absent", IdentitiesOnly="yes", IdentityAgent=agent)
    assert "no key" in assert_refused().message


def test_the_agent_of_the_environment_is_used_unless_disabled(
    sshd, use, agent, tmp_path, monkeypatch
):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    use(IdentityFile=tmp_path / "absent", IdentitiesOnly="no", IdentityAgent="SSH_AUTH_SOCK")
    assert read_error(SshTransport("dev")) == b"hello\n"
    use(IdentityFile=tmp_path / "absent", IdentitiesOnly="no", IdentityAgent="none")
    assert "no key" in assert_refused().message


def test_a_jump_host_is_checked_and_passed(sshd, use):
    config = use(ProxyJump="hop")
    plain = config.read_text().replace("Host dev", "Host hop").replace("  ProxyJump hop\n", "")
    config.write_text(config.read_text() + plain)
    assert read_error(SshTransport("dev")) == b"hello\n"
    twice = config.read_text().replace("ProxyJump hop", "ProxyJump hop,hop")
    config.write_text(twice)
    assert read_error(SshTransport("dev")) == b"hello\n"
    unknown = plain.replace(str(config) + ".known", "/dev/null")
    config.write_text(config.read_text().replace(plain, unknown))
    with pytest.raises(DeviceError, match=r"^hop: refused: its host key is unknown"):
        SshTransport("dev")


def test_a_jump_that_leads_to_itself_ends(sshd, use):
    use(ProxyJump="dev")
    with pytest.raises(DeviceError, match="ProxyJump goes through more than"):
        SshTransport("dev")


def test_a_jump_host_that_cannot_reach_the_host_is_reported(sshd, use):
    config = use(ProxyJump="hop")
    plain = config.read_text().replace("Host dev", "Host hop").replace("  ProxyJump hop\n", "")
    config.write_text(
        config.read_text().replace(f"Port {sshd.port}", f"Port {free_port()}") + plain
    )
    assert "the jump host cannot reach 127.0.0.1" in assert_refused().message


RELAY = (
    "import socket, sys, threading, os\n"
    "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
    "def up():\n"
    "    while d := os.read(0, 65536): s.sendall(d)\n"
    "    s.shutdown(1)\n"
    "threading.Thread(target=up, daemon=True).start()\n"
    "while d := s.recv(65536): os.write(1, d)\n"
)


def test_a_proxy_command_is_used(sshd, use, tmp_path):
    import sys

    (tmp_path / "relay.py").write_text(RELAY)
    use(ProxyCommand=f"{sys.executable} {tmp_path}/relay.py %p")
    assert read_error(SshTransport("dev")) == b"hello\n"


def test_a_host_unknown_behind_a_proxy_is_not_to_be_scanned(sshd, use, tmp_path):
    import sys

    (tmp_path / "relay.py").write_text(RELAY)
    use(ProxyCommand=f"{sys.executable} {tmp_path}/relay.py %p", known="")
    assert assert_refused().hint.endswith("ssh -o HostKeyAlgorithms=ssh-ed25519 dev")
    config = use(ProxyJump="hop", known="")
    plain = config.read_text().replace("Host dev", "Host hop").replace("  ProxyJump hop\n", "")
    (tmp_path / "hops").write_text(sshd.known_line())
    config.write_text(config.read_text() + plain.replace(f"{config}.known", f"{tmp_path}/hops"))
    assert assert_refused().hint.endswith("ssh -o HostKeyAlgorithms=ssh-ed25519 dev")


def test_a_proxy_command_that_ends_at_once_is_an_error(sshd, use):
    use(ProxyCommand="false")
    assert "no SSH connection" in assert_refused().message


def test_a_port_without_a_server_is_reported(sshd, use):
    use(Port=free_port())
    error = assert_refused()
    assert "refused" in error.message
    assert error.transient


def test_a_name_that_does_not_resolve_is_reported(sshd, use):
    use(HostName="no-such-host.invalid")
    assert "no address for no-such-host.invalid" in assert_refused().message


def test_a_silent_server_is_abandoned(sshd, use):
    proxy = Proxy(sshd.port, stall_after=-1).start()
    use(Port=proxy.port, ConnectTimeout=1)
    started = time.monotonic()
    error = assert_refused()
    assert "no SSH connection" in error.message
    assert error.transient
    assert time.monotonic() - started < 10
    proxy.stop()


def test_a_server_that_is_not_ssh_is_an_error(sshd, use):
    import socket
    import threading

    server = socket.create_server(("127.0.0.1", 0))

    def answer():
        near, _ = server.accept()
        near.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        near.close()

    threading.Thread(target=answer, daemon=True).start()
    use(Port=server.getsockname()[1], ConnectTimeout=3)
    assert "no SSH connection" in assert_refused().message
    server.close()


def test_a_missing_python_is_reported(sshd, tmp_path):
    (tmp_path / "empty").mkdir()
    sshd.environment(f"PATH={tmp_path}/empty\n")
    with (
        pytest.raises(DeviceError, match=r"dev: no Python 3\.9 or newer found there") as caught,
        open_session("dev"),
    ):
        pass
    assert "apt install python3" in caught.value.hint


def test_a_python_that_is_too_old_is_skipped(sshd, tmp_path):
    old = tmp_path / "bin/python3"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    sshd.environment(f"PATH={old.parent}:$PATH\n")
    with open_session("dev") as session:
        assert session.ask(StatusJob(home=session.home), Status).current is None


def test_a_chatty_login_does_not_disturb(sshd):
    sshd.environment("echo Welcome to the robot; echo; echo '{\"a\": 1}'\n")
    with open_session("dev") as session:
        assert session.home == str(sshd.edgekit_home)


def test_the_library_prints_nothing_of_its_own(sshd, use, capfd):
    use(known="")
    assert_refused()
    use(ProxyCommand="false")
    assert_refused()
    assert capfd.readouterr() == ("", "")
