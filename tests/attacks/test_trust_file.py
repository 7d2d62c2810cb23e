"""The file of trusted keys: damage, its copy, and revocation of the trust."""

import json

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.session import open_session
from edgekit.remote.trust import end_trust, read_trust
from edgekit.signing.keys import make_key
from edgekit.signing.releases import sign_statement, waive_signatures
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import TrustJob, UntrustJob
from edgekit_agent.releases.audit import read_last_lines
from edgekit_agent.releases.homes import open_home
from edgekit_agent.trust import keys as on_device
from edgekit_agent.trust.keys import COPY, TRUST, change_trust, try_read_trust
from edgekit_agent.trust.statements import Permit, TrustedKey, Waiver
from tests.builders.projects import edgekit
from tests.builders.servers import make_bundle
from tests.builders.signed import Device, make_signed, now_s

DAMAGE = ["", "{}{", "[]", "[" * 100_000, '{"keys": 7}', '{"keys":[{"public":"0"}]}', "\udcff"]


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device that trusts two keys and has revoked a third."""
    for name in ("config", "home", "cache"):
        monkeypatch.setenv(f"EDGEKIT_{name.upper()}", str(tmp_path / name))
    made = Device(home=tmp_path / "home", cache=tmp_path / "cache")
    for name in ("owner", "other", "stolen"):
        change(made, add=(make_key(name).get_trusted_key(),))
    change(made, revoke=(key("stolen").public,))
    return made


def key(name):
    from edgekit.signing.keys import find_signing_key

    return find_signing_key(name)


def change(device, **how):
    return change_trust(TrustJob(str(device.home), **how))


def home(device):
    return open_home(str(device.home))


def damage(device, *names, text="{}{"):
    for name in names:
        (device.home / name).write_bytes(text.encode(errors="surrogateescape"))


def actions(device):
    return [line.action for line in read_last_lines(home(device), 50)]


def names(keys):
    return {each.name for each in keys}


def waiver(device, by, **changes):
    how = {"key": by.public, "nonce": try_read_trust(home(device)).nonce, "signed_s": now_s()}
    return sign_statement(by, Waiver(**{**how, **changes}))


def assert_refused(device, signature):
    before = device.files()
    with pytest.raises(AgentError) as caught:
        on_device.end_trust(UntrustJob(str(device.home), signature))
    assert device.files() == before
    return caught.value.failure.kind


# --- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", DAMAGE)
def test_a_damaged_file_and_copy_accept_no_release(device, text):
    damage(device, TRUST, COPY, text=text)
    assert try_read_trust(home(device)) is None
    with pytest.raises(AgentError) as caught:
        on_device.read_trust(home(device))
    assert caught.value.failure.kind == "damaged_trust"
    assert "keys trust HOST --replace" in caught.value.failure.hint


@pytest.mark.parametrize("text", [*DAMAGE, None])
def test_a_damaged_or_lost_file_is_read_from_its_copy_and_restored(device, text):
    before = try_read_trust(home(device))
    if text is None:
        (device.home / TRUST).unlink()
    else:
        damage(device, TRUST, text=text)
    assert try_read_trust(home(device)) == before
    change(device, add=(make_key("next").get_trusted_key(),))
    (device.home / COPY).unlink()
    after = try_read_trust(home(device))
    assert (names(after.keys), names(after.revoked)) == ({"owner", "other", "next"}, {"stolen"})
    assert actions(device) == ["restore keys"]


def test_a_damaged_copy_is_written_anew_with_the_next_change(device):
    damage(device, COPY)
    change(device, revoke=(key("other").public,))
    damage(device, TRUST)
    assert names(try_read_trust(home(device)).revoked) == {"stolen", "other"}


def test_a_change_cut_off_between_file_and_copy_loses_no_revocation(device, monkeypatch):
    write, written = on_device.write_atomic, []

    def cut(path, data, **how):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data, **how)

    monkeypatch.setattr(on_device, "write_atomic", cut)
    with pytest.raises(KeyboardInterrupt):
        change(device, revoke=(key("other").public,))
    assert names(try_read_trust(home(device)).keys) == {"owner", "other"}
    damage(device, TRUST)
    assert names(try_read_trust(home(device)).revoked) == {"stolen", "other"}


def test_revocations_are_never_forgotten_silently(device, tmp_path):
    damage(device, TRUST, COPY)
    done = edgekit("keys", "trust", "local", "--key", "owner")
    assert (done.code, "keys trust HOST --replace" in done.err) == (4, True)
    with pytest.raises(AgentError):
        change(device, revoke=(key("owner").public,), replace=True)
    assert edgekit("keys", "trust", "local", "--key", "owner", "--replace").code == 0
    trust = try_read_trust(home(device))
    assert (names(trust.keys), trust.revoked) == ({"owner"}, ())
    assert actions(device)[-2:] == ["replace keys", "trust"]
    log = edgekit("status", "local", "--log").out
    assert "revoked keys, versions and the time were forgotten" in log


def test_replacing_an_undamaged_file_forgets_nothing(device):
    change(device, add=(key("owner").get_trusted_key(),), replace=True)
    assert names(try_read_trust(home(device)).revoked) == {"stolen"}
    assert actions(device) == []


def test_with_a_damaged_file_the_served_release_keeps_running(device, tmp_path):
    owner = key("owner")
    device.push(make_signed(tmp_path / "a", owner, version=5))
    device.push(make_signed(tmp_path / "b", owner, seed=1, version=6))
    damage(device, TRUST, COPY)
    state = device.status()
    assert (state.current.version, state.trust) == (6, None)
    assert "until you run 'edgekit keys trust --replace'" in edgekit("status", "local").out
    with pytest.raises(DeviceError) as caught:
        device.push(make_bundle(tmp_path / "evil", seed=2, width=8))
    assert caught.value.kind == "damaged_trust"
    assert device.rollback().current.version == 5
    device.trust(owner, replace=True)
    assert device.push(make_signed(tmp_path / "c", owner, seed=3, version=7)).health.healthy


def test_the_files_are_readable_only_by_their_owner(device):
    for name in (TRUST, COPY):
        assert (device.home / name).stat().st_mode & 0o777 == 0o600
    assert "takes_unsigned" not in json.loads((device.home / TRUST).read_text())


# --- the end of the trust ------------------------------------------------------------------


def test_the_owner_of_a_trusted_key_lets_a_device_take_unsigned_releases_again(device, tmp_path):
    bundle = make_bundle(tmp_path / "b", width=8)
    with pytest.raises(DeviceError) as caught:
        device.push(bundle)
    assert caught.value.kind == "unsigned"
    done = edgekit("keys", "untrust", "local")
    assert done.code == 0, done.err
    assert "trusts no key; accepts every release, revoked: stolen" in done.out
    assert device.push(bundle).health.healthy
    assert edgekit("keys", "untrust", "local").out == done.out  # nothing is left to be done
    lines = [line for line in read_last_lines(home(device), 50) if line.action == "untrust"]
    assert [(line.key, line.result) for line in lines] == [(key("other").id, "done")]


def test_revocations_and_the_version_apply_when_a_key_is_trusted_again(device, tmp_path):
    device.push(make_signed(tmp_path / "a", key("owner"), version=5))
    with open_session("local") as session:
        end_trust(session)
        assert read_trust(session).takes_unsigned
    with pytest.raises(AgentError) as caught:
        change(device, add=(key("stolen").get_trusted_key(),))
    assert caught.value.failure.kind == "revoked_key"
    trust = change(device, add=(key("owner").get_trusted_key(),))
    assert (names(trust.keys), names(trust.revoked)) == ({"owner"}, {"stolen"})
    assert (trust.version, trust.wants_signature()) == (5, True)


def test_only_a_trusted_key_ends_the_trust(device):
    stranger, owner = make_key("stranger"), key("owner")
    nonce = try_read_trust(home(device)).nonce
    assert assert_refused(device, waiver(device, stranger)) == "untrusted_key"
    assert assert_refused(device, waiver(device, key("stolen"))) == "revoked_key"
    assert assert_refused(device, waiver(device, stranger, key=owner.public)) == "untrusted_key"
    assert assert_refused(device, waiver(device, owner, key=stranger.public)) == "bad_signature"
    permit = sign_statement(owner, Permit(owner.public, "0" * 64, nonce, now_s()))
    assert assert_refused(device, permit) == "bad_signature"
    assert assert_refused(device, waiver(device, owner, nonce="")) == "bad_permit"
    assert "untrust" not in actions(device)


def test_a_permission_is_valid_once(device):
    signature = waive_signatures(try_read_trust(home(device)))
    on_device.end_trust(UntrustJob(str(device.home), signature))
    change(device, add=(key("owner").get_trusted_key(), key("other").get_trusted_key()))
    assert assert_refused(device, signature) == "bad_permit"


def test_a_user_without_a_trusted_key_gets_an_error(device, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "of somebody else"))
    done = edgekit("keys", "untrust", "local")
    assert (done.code, "the device trusts none of your keys" in done.err) == (4, True)
    assert try_read_trust(home(device)).wants_signature()


def test_a_damaged_file_of_keys_is_not_opened(device):
    signature = waiver(device, key("owner"))
    damage(device, TRUST, COPY)
    assert assert_refused(device, signature) == "damaged_trust"


def test_a_device_without_keys_has_no_trust_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    made = Device(home=tmp_path / "empty", cache=tmp_path / "cache")
    own = make_key("owner")
    signature = sign_statement(own, Waiver(own.public, "", now_s()))
    with pytest.raises(AgentError) as caught:
        on_device.end_trust(UntrustJob(str(made.home), signature))
    assert caught.value.failure.kind == "untrusted_key"
    assert TrustedKey(own.public) not in try_read_trust(home(made)).keys
