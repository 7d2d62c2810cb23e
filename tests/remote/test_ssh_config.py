from pathlib import Path

import pytest

from edgekit.errors import DeviceError, UserError
from edgekit.remote.ssh import _lookup
from edgekit.remote.ssh_config import HostSpec, parse_host, read_settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    def read(text, host="dev"):
        config = tmp_path / "config"
        config.write_text(text)
        monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))
        return read_settings(parse_host(host), _lookup)

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
def test_what_is_no_host_is_refused(text):
    with pytest.raises(UserError, match="does not name a host"):
        parse_host(text)


def test_what_the_user_says_beats_the_file(settings):
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
    with pytest.raises(DeviceError, match="Include goes deeper"):
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
def test_a_wrong_configuration_is_one_line(settings, text):
    with pytest.raises(DeviceError, match="configuration") as caught:
        settings(text)
    assert "\n" not in caught.value.message


def test_a_configuration_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", "/no/such")
    with pytest.raises(UserError, match="/no/such"):
        read_settings(parse_host("dev"), _lookup)
