"""Host keys against known_hosts files, and the hints of refusals."""

import subprocess
from pathlib import Path

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.ssh.known_hosts import (
    Address,
    HostKey,
    check_host_key,
    find_preferred_kinds,
    read_known_keys,
)
from tests.builders.servers import make_key

PLACE = Address(host="10.0.0.7", port=2222)


def key_of(path: Path) -> tuple[str, HostKey]:
    kind, text = path.with_suffix(".pub").read_text().split()[:2]
    import base64

    return f"{kind} {text}", HostKey(kind=kind, blob=base64.b64decode(text))


@pytest.fixture
def keys(tmp_path):
    return [key_of(make_key(tmp_path / f"k{i}")) for i in range(2)]


def hosts(tmp_path, text):
    file = tmp_path / "known_hosts"
    file.write_text(text)
    return (file,)


@pytest.mark.parametrize(
    "names",
    [
        "[10.0.0.7]:2222",
        "[10.0.0.*]:2222",
        "other,[10.0.0.7]:222?",
        "*",
        "10.0.0.7",
        "[10.0.0.7]:*",
    ],
)
def test_a_key_under_a_name_or_pattern_is_accepted(tmp_path, keys, names):
    (text, key), _ = keys
    check_host_key("dev", key, PLACE, hosts(tmp_path, f"# comment\n\n{names} {text} who@where\n"))


@pytest.mark.parametrize("plain", ["10.0.0.7", "10.0.0.*"])
def test_a_key_of_another_port_counts_only_where_this_port_is_unknown(tmp_path, keys, plain):
    (here, _), (elsewhere, shown) = keys
    lines = f"[10.0.0.7]:2222 {here}\n{plain} {elsewhere}\n"
    with pytest.raises(DeviceError, match="has changed"):
        check_host_key("dev", shown, PLACE, hosts(tmp_path, lines))
    check_host_key("dev", shown, PLACE, hosts(tmp_path, f"{plain} {elsewhere}\n"))


@pytest.mark.parametrize("names", ["[10.0.0.7]:22", "*,![10.0.0.*]:2222,!10.0.0.7", "10.0.0.70"])
def test_a_key_under_other_names_leaves_the_host_unknown(tmp_path, keys, names):
    (text, key), _ = keys
    with pytest.raises(DeviceError, match="unknown: ssh-ed25519 SHA256:"):
        check_host_key("dev", key, PLACE, hosts(tmp_path, f"{names} {text}\n"))


def test_hashed_names_are_found(tmp_path, keys):
    (text, key), _ = keys
    files = hosts(tmp_path, f"[10.0.0.7]:2222 {text}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(files[0])], check=True, capture_output=True)
    assert files[0].read_text().startswith("|1|")
    check_host_key("dev", key, PLACE, files)
    assert read_known_keys(files, "[10.0.0.8]:2222") == ()


def test_invalid_lines_do_not_hide_the_host(tmp_path, keys):
    (text, key), (other, _) = keys
    lines = f"@cert-authority *.lan {other}\n@revoked * {other}\ngarbage\nx y z\n|1|bad {other}\n"
    check_host_key("dev", key, PLACE, hosts(tmp_path, f"{lines}[10.0.0.7]:2222 {text}\n"))


def test_an_unknown_host_is_refused_with_its_fingerprint_and_the_way_to_accept_it(tmp_path, keys):
    (_, key), _ = keys
    with pytest.raises(DeviceError) as caught:
        check_host_key("dev", key, PLACE, (tmp_path / "none", tmp_path / "none2"))
    assert key.fingerprint in caught.value.message
    assert f"ssh-keyscan -p 2222 -t ed25519 10.0.0.7 >> {tmp_path}/none" in caught.value.hint
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "k0.pub")], check=True, capture_output=True, text=True
    ).stdout
    assert key.fingerprint.split()[1] in said


def test_a_host_behind_another_is_accepted_through_it(tmp_path, keys):
    (_, key), _ = keys
    place = Address(host="10.0.0.7", port=2222, proxied=True)
    with pytest.raises(DeviceError) as caught:
        check_host_key("dev", key, place, (tmp_path / "none",))
    assert "ssh-keyscan" not in caught.value.hint
    assert caught.value.hint.endswith("ssh -o HostKeyAlgorithms=ssh-ed25519 dev")


def test_a_changed_key_is_refused_with_both_fingerprints(tmp_path, keys):
    (text, known), (_, shown) = keys
    with pytest.raises(DeviceError, match="changed") as caught:
        check_host_key("dev", shown, PLACE, hosts(tmp_path, f"[10.0.0.7]:2222 {text}\n"))
    assert known.fingerprint in caught.value.message
    assert shown.fingerprint in caught.value.message
    assert "ssh-keygen -R '[10.0.0.7]:2222'" in caught.value.hint


def test_a_revoked_key_is_refused_although_it_is_listed_too(tmp_path, keys):
    (text, key), _ = keys
    lines = f"[10.0.0.7]:2222 {text}\n@revoked * {text}\n"
    with pytest.raises(DeviceError, match="@revoked"):
        check_host_key("dev", key, PLACE, hosts(tmp_path, lines))


def test_an_authority_alone_does_not_vouch_for_a_plain_key(tmp_path, keys):
    (_, key), (authority, _) = keys
    with pytest.raises(DeviceError, match="authority"):
        check_host_key("dev", key, PLACE, hosts(tmp_path, f"@cert-authority * {authority}\n"))


def test_an_alias_is_looked_up_without_the_port(tmp_path, keys):
    (text, key), _ = keys
    place = Address(host="10.0.0.7", port=2222, alias="robot")
    files = hosts(tmp_path, f"robot {text}\n")
    check_host_key("dev", key, place, files)
    assert find_preferred_kinds(files, place) == ("ssh-ed25519",)
