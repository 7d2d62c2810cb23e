"""The SSH configuration is read as OpenSSH reads it."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from edgekit.errors import DeviceError, UserError
from edgekit.remote.ssh.host_settings import HostSpec, parse_host, read_settings


@pytest.fixture(params=["OpenSSH", "parser"])
def settings(request, tmp_path, monkeypatch):
    """Settings of ``dev``, as OpenSSH resolves them and as the parser does without it."""
    if request.param == "parser":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    elif shutil.which("ssh") is None:
        pytest.skip("no OpenSSH on this machine")

    def read(text, host="dev"):
        config = tmp_path / "config"
        config.write_text(text)
        monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))
        return read_settings(parse_host(host))

    return read


@pytest.mark.parametrize(
    ("text", "name", "user", "port"),
    [
        ("pi", "pi", None, None),
        ("me@pi", "me", "me", None),
        ("me@pi:2222", "pi", "me", 2222),
        ("pi:22", "pi", None, 22),
        ("[fe80::1%eth0]:22", "fe80::1%eth0", None, 22),
        ("me@[::1]", "::1", "me", None),
        ("fe80::1", "fe80::1", None, None),
        ("ssh://me@pi:99/", "pi", "me", 99),
        ("a@b@pi", "pi", "a@b", None),
    ],
)
def test_a_host_is_read_as_ssh_reads_it(text, name, user, port):
    name = "pi" if text == "me@pi" else name
    assert parse_host(text) == HostSpec(name=name, user=user, port=port)


@pytest.mark.parametrize(
    "text", ["", "@", "me@", "pi:", "pi:0", "pi:99999", "-oProxyCommand=x", "a b"]
)
def test_an_invalid_host_is_refused(text):
    with pytest.raises(UserError, match="does not name a host"):
        parse_host(text)


def test_the_command_line_overrides_the_file(settings):
    found = settings("Host dev\n User a\n Port 1\n HostName h\n", "me@dev:7")
    assert (found.user, found.port, found.hostname) == ("me", 7, "h")


def test_includes_are_followed_with_globs_and_in_order(tmp_path, settings):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.conf").write_text("Host dev\n Port 11\n")
    (tmp_path / "d/2.conf").write_text("Host dev\n Port 22\n User two\n")
    found = settings(f"Include {tmp_path}/d/*.conf {tmp_path}/absent\nHost dev\n HostName h\n")
    assert (found.port, found.user, found.hostname) == (11, "two", "h")


def test_an_include_in_a_block_counts_only_where_the_block_does(tmp_path, settings):
    (tmp_path / "inner").write_text("User inner\nHost *\n Port 5\n")
    text = f"Host other\n Include {tmp_path}/inner\n HostName no\nHost dev\n HostName yes\n"
    found = settings(text)
    assert (found.hostname, found.port) == ("yes", 22)
    found = settings(text.replace("other", "d*"))
    assert (found.hostname, found.port, found.user) == ("no", 5, "inner")


def test_a_file_that_includes_itself_is_an_error(tmp_path, settings):
    with pytest.raises(DeviceError, match=r"Include goes deeper|recursive configuration includes"):
        settings(f"Include {tmp_path}/config\n")


def test_every_setting_is_taken_over(tmp_path, settings, monkeypatch):
    monkeypatch.setenv("MY_SOCK", "/run/me")
    found = settings(
        "Host dev\n HostName 10.0.0.7\n HostKeyAlias robot\n IdentityFile ~/a\n"
        " IdentityFile /b/%r\n"
        " IdentitiesOnly yes\n IdentityAgent $MY_SOCK\n ConnectTimeout 3\n User u\n"
        f" UserKnownHostsFile {tmp_path}/%k {tmp_path}/two\n GlobalKnownHostsFile none\n"
        " ProxyJump a,b@c:3\n"
    )
    assert found.identity_files == (Path("~/a").expanduser(), Path("/b/u"))
    assert found.known_hosts == (tmp_path / "robot", tmp_path / "two")
    assert (found.identities_only, found.identity_agent) == (True, "/run/me")
    assert (found.host_key_alias, found.connect_timeout_s) == ("robot", 3.0)
    assert found.proxy_jump == ("a", "b@c:3")


@pytest.mark.parametrize(
    ("value", "socket"), [("none", None), ("SSH_AUTH_SOCK", "/s"), ("/x", "/x")]
)
def test_the_agent_is_the_one_the_user_names(settings, monkeypatch, value, socket):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/s")
    assert settings(f"Host dev\n IdentityAgent {value}\n").identity_agent == socket


def test_proxy_command_tokens_are_filled_in(settings):
    found = settings("Host dev\n HostName h\n User u\n ProxyCommand nc %h %p %n\n", "dev:9")
    assert found.proxy_command == "nc h 9 dev"
    assert settings("Host dev\n ProxyCommand none\n ProxyJump none\n").proxy_command is None


@pytest.mark.parametrize(
    "text", ["Host dev\n Port many\n", "Host dev\n Port\n", "Match nonsense x\n"]
)
def test_a_wrong_configuration_causes_one_line(settings, text):
    with pytest.raises(DeviceError, match="configuration") as caught:
        settings(text)
    assert "\n" not in caught.value.message


def test_a_configuration_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", "/no/such")
    with pytest.raises(UserError, match="/no/such"):
        read_settings(parse_host("dev"))


BASE = "Host dev\n HostName 127.0.0.1\n Port 2222\n User me\n"
PLACE = ("127.0.0.1", 2222, "me")
# Configurations that all lead to the same place, in spellings that OpenSSH takes.
SAME_PLACE = {
    "comments": "Host dev # the Pi\n HostName 127.0.0.1 # here\n Port 2222 # odd\n User me #\n",
    "equals": "Host=dev\nHostName=127.0.0.1\nPort = 2222\nUser=me\n",
    "quotes": BASE.replace("127.0.0.1", '"127.0.0.1"').replace(" me", " 'me'"),
    "tabs and CRLF": BASE.replace(" ", "\t").replace("\n", "\r\n"),
    "keywords of any case": BASE.upper().replace("DEV", "dev").replace("ME\n", "me\n"),
    "the first value counts": f"{BASE}Host *\n Port 1\n User you\n",
    "a negated pattern": f"Host * !dev\n Port 1\n{BASE}",
    "Match host=": f"Match host=dev\n{BASE.partition(chr(10))[2]}",
    "Match host of a quoted list": f'Match host "other,dev"\n{BASE.partition(chr(10))[2]}',
    "Match by the resolved name": (
        "Host dev\n HostName 127.0.0.1\nMatch host 127.*\n Port 2222\n User me\n"
    ),
    "Match originalhost": f"Match originalhost dev\n{BASE.partition(chr(10))[2]}",
    "Match of a negated host": f"Match !host dev\n Port 1\n{BASE}",
    "Match user": "Host dev\n HostName 127.0.0.1\n User me\nMatch user me\n Port 2222\n",
    "Match exec of another host": f'Match host other exec "touch {{tmp}}/ran"\n User no\n{BASE}',
    "Match exec that fails": f'Match exec "false"\n User no\n{BASE}',
    "Match exec with a token": f'Match exec "test %n = dev"\n{BASE.partition(chr(10))[2]}',
    "Match all": f"Match all\n{BASE.partition(chr(10))[2]}",
    "Match final": f"Match final host 127.0.0.1\n Port 2222\n{BASE.replace(' Port 2222', '')}",
    "a host name with its own": "Host dev\n HostName 127.0.0.%%1\n Port 2222\n User me\n",
}


@pytest.mark.parametrize("text", SAME_PLACE.values(), ids=SAME_PLACE.keys())
def test_the_place_is_the_one_that_ssh_would_dial(settings, tmp_path, text):
    found = settings(text.replace("{tmp}", str(tmp_path)))
    place = (found.hostname.replace("%1", "1"), found.port, found.user)
    assert place == PLACE
    assert not (tmp_path / "ran").exists(), "a command of another host must not run"


@pytest.mark.parametrize(
    ("lines", "jump", "command"),
    [
        (" ProxyCommand none\nHost *\n ProxyJump gate\n", (), None),
        (" ProxyJump none\nHost *\n ProxyCommand nc %h\n", (), "nc 127.0.0.1"),
        (" ProxyJump none\nHost *\n ProxyJump gate\n", (), None),
        (" ProxyJump gate\n ProxyCommand nc %h\n", ("gate",), None),
        (" ProxyCommand nc %h # there\n ProxyJump gate\n", (), "nc 127.0.0.1 # there"),
    ],
)
def test_whichever_proxy_comes_first_counts(settings, lines, jump, command):
    found = settings(BASE + lines)
    assert (found.proxy_jump, found.proxy_command) == (jump, command)


@pytest.mark.parametrize(
    ("value", "seconds"), [("10s", 10), ("1m30s", 90), ("2h", 3600), ("none", 20), ("7", 7)]
)
def test_times_have_units(settings, value, seconds):
    assert settings(f"{BASE} ConnectTimeout {value}\n").connect_timeout_s == seconds


def test_certificates_and_names_with_spaces_are_taken_over(settings, tmp_path):
    (tmp_path / "a b").write_text("")
    found = settings(
        f'{BASE} CertificateFile "{tmp_path}/c d-cert.pub"\n IdentityFile "{tmp_path}/c d"\n'
        f' UserKnownHostsFile "{tmp_path}/a b" {tmp_path}/%k\n GlobalKnownHostsFile none\n'
    )
    assert found.certificate_files == (tmp_path / "c d-cert.pub",)
    assert found.identity_files == (tmp_path / "c d",)
    assert found.known_hosts == (tmp_path / "a b", tmp_path / "dev")


@pytest.mark.parametrize(
    "text",
    [
        'Include "broken\n',
        'Host "dev\n',
        "Host dev\n ConnectTimeout soon\n",
        "Match host\n",
        "= 3\n",
    ],
)
def test_a_line_that_ssh_refuses_causes_one_line(settings, text):
    with pytest.raises(DeviceError) as caught:
        settings(text + BASE)
    assert "\n" not in caught.value.message


def test_the_parser_says_where_a_line_is_wrong(tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(f'{BASE}Include "broken\n')
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=rf"{config}:5: .*quote is not closed"):
        read_settings(parse_host("dev"))


def test_another_ssh_than_that_of_openssh_is_not_asked(tmp_path, monkeypatch):
    config, ssh = tmp_path / "config", tmp_path / "ssh"
    config.write_text(BASE)
    ssh.write_text("#!/bin/sh\necho 'Dropbear v2022.83' >&2\nexit 1\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_settings(parse_host("dev")).port == 2222


def test_without_any_configuration_both_ways_agree(tmp_path, monkeypatch):
    if shutil.which("ssh") is None:
        pytest.skip("no OpenSSH on this machine")
    config = tmp_path / "config"
    config.write_text("")
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))
    by_openssh = read_settings(parse_host("me@dev:7"))
    monkeypatch.setenv("PATH", str(tmp_path))
    parsed = read_settings(parse_host("me@dev:7"))
    assert set(parsed.identity_files) <= set(by_openssh.identity_files)
    assert dataclasses.replace(by_openssh, identity_files=()) == dataclasses.replace(
        parsed, identity_files=()
    )
