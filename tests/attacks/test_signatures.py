"""The attacks that The Update Framework lists, against a device that trusts a key.

Each is refused with one line, and nothing on the device is changed.
"""

import contextlib
import json
import platform
import shutil
import time

import pytest

from edgekit.bundle.manifest import SIGNATURE, encode_signature, open_bundle, write_bundle
from edgekit.errors import DeviceError, UserError
from edgekit.remote.deploy import push
from edgekit.remote.session import Session, open_session
from edgekit.remote.trust import read_trust as read_keys
from edgekit.remote.trust import revoke_key
from edgekit.remote.upload import sha256
from edgekit.signing.keys import find_signing_key, make_key
from edgekit.signing.releases import Signer, permit_downgrade, sign_statement
from edgekit_agent.jobs import InstallJob, NamedBlob, StatusJob
from edgekit_agent.results import Status
from edgekit_agent.trust.signatures import check_release, read_statement
from edgekit_agent.trust.statements import Permit, Signature, SignedFile, Statement
from tests.attacks.test_hostile_devices import HostileTransport
from tests.builders.projects import edgekit
from tests.builders.servers import make_bundle
from tests.builders.signed import Device, make_signed, now_s, restated, with_signature


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A device that trusts a key and serves version 5 of it, to be copied."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(root / "config"))
        patch.setenv("EDGEKIT_HOME", str(root / "device"))
        device = Device(home=root / "device", cache=root / "cache")
        key = make_key("owner")
        make_key("mallory")
        device.trust(key)
        device.push(make_signed(root / "served", key, version=5))
    return root


@pytest.fixture
def device(template, tmp_path, monkeypatch):
    """The device, and the keys of its owner and of somebody else."""
    shutil.copytree(template, tmp_path / "t", symlinks=True)
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "t/config"))
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "t/device"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "t/cache"))
    return Device(home=tmp_path / "t/device", cache=tmp_path / "t/cache")


@pytest.fixture
def key(device):
    return find_signing_key("owner")


@pytest.fixture
def mallory(device):
    return find_signing_key("mallory")


@pytest.fixture
def served(device, tmp_path):
    """The release that the device serves."""
    return open_bundle(tmp_path / "t/served")


def refused(device, bundle, kind, *, allow_downgrade=False):
    """The message with which a push is refused; nothing has changed on the device."""
    before = device.files()
    with pytest.raises(DeviceError) as caught:
        device.push(bundle, allow_downgrade=allow_downgrade)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in caught.value.message
    assert device.files() == before
    return str(caught.value)


def install_anyway(device, bundle, *, signature="own", **changes):
    """Send the job that installs a bundle without asking for leave before."""
    manifest = bundle.manifest
    release = sha256(bundle.manifest_bytes)
    facts = {
        "release": release[:16],
        "files": (*bundle.blobs(), NamedBlob("manifest.json", release)),
        "model": manifest.model,
        "runtime": manifest.runtime.name,
        "threads": manifest.runtime.threads,
        "site": None,
        "canaries": manifest.canaries,
        "max_relative_error": manifest.max_relative_error,
        "signature": bundle.signature if signature == "own" else signature,
        **changes,
    }
    before = device.files()
    with open_session("local") as session, pytest.raises(DeviceError) as caught:
        session.ask(InstallJob(home=session.home, **facts), Status)
    assert device.files() == before
    return caught.value.kind


# --- arbitrary software -------------------------------------------------------------------


def test_arbitrary_software_that_is_not_signed_is_refused(device, served, tmp_path):
    unsigned = make_bundle(tmp_path / "evil", seed=1, width=8)
    assert "not signed" in refused(device, unsigned, "unsigned")
    assert install_anyway(device, unsigned) == "unsigned"


def test_arbitrary_software_under_a_copied_signature_is_refused(device, served, tmp_path):
    evil = with_signature(make_bundle(tmp_path / "evil", seed=1, width=8), served.signature)
    with pytest.raises(UserError, match="of other files"):
        evil.check()
    assert install_anyway(device, evil) == "not_as_signed"


def test_arbitrary_software_whose_statement_was_edited_is_refused(device, served, tmp_path):
    evil = make_bundle(tmp_path / "evil", seed=1, width=8)
    old = served.signature
    for text in (
        old.statement.replace('"version":5', '"version":6'),
        old.statement + " ",
        old.statement.replace(":", ": "),
    ):
        edited = with_signature(evil, Signature(old.key, text, old.signature))
        assert "signature" in refused(device, edited, "bad_signature")
        assert install_anyway(device, edited) == "bad_signature"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[" * 100_000, '{"key":1}', "\ud800", "1e999", "9" * 10_000, '{"a":' * 9000],
)
def test_a_statement_that_is_none_is_refused_even_if_it_is_signed(device, served, key, text):
    mark = b""
    with contextlib.suppress(UnicodeEncodeError):
        mark = key.sign(b"edgekit release 1\0" + text.encode())
    bundle = with_signature(served, Signature(key.public, text, mark.hex()))
    assert install_anyway(device, bundle) == "bad_signature"


# --- rollback -----------------------------------------------------------------------------


def test_rollback_to_a_lower_version_is_refused(device, served, key, tmp_path):
    old = make_signed(tmp_path / "old", key, seed=1, version=4)
    assert "4 is lower than 5" in refused(device, old, "lower_version")
    assert install_anyway(device, old) == "lower_version"


def test_rollback_is_refused_after_the_device_went_back(device, served, key, tmp_path):
    newest = make_signed(tmp_path / "new", key, seed=1, version=7)
    device.push(newest)
    device.rollback()
    old = make_signed(tmp_path / "old", key, seed=2, version=6)
    refused(device, old, "lower_version")
    assert device.push(newest).health.healthy


def test_a_lower_version_needs_leave_that_is_signed_too(device, served, key, mallory, tmp_path):
    old = make_signed(tmp_path / "old", key, seed=1, version=4)
    key.path.rename(key.path.with_suffix(".away"))
    before = device.files()
    with pytest.raises(DeviceError, match="no key of yours is trusted"):
        device.push(old, allow_downgrade=True)
    assert device.files() == before
    trust = device.status().trust
    forged = sign_statement(mallory, Permit(mallory.public, "0" * 64, trust.nonce, now_s()))
    assert install_anyway(device, old, permit=forged) == "untrusted_key"
    key.path.with_suffix(".away").rename(key.path)
    assert device.push(old, allow_downgrade=True).health.healthy
    assert device.status().trust.version == 4


def test_leave_for_a_lower_version_holds_once_and_for_one_release(device, served, key, tmp_path):
    old = make_signed(tmp_path / "old", key, seed=1, version=4)
    older = make_signed(tmp_path / "older", key, seed=2, version=3)
    permit = permit_downgrade(old.signature, device.status().trust)
    assert install_anyway(device, older, permit=permit) == "bad_permit"
    # A signed release is no leave, and leave is no release.
    assert install_anyway(device, old, permit=served.signature) == "bad_signature"
    assert install_anyway(device, old, signature=permit) == "bad_signature"
    device.push(old, allow_downgrade=True)
    device.push(restated(served, key, version=9))
    assert install_anyway(device, old, permit=permit) == "bad_permit"


# --- freeze -------------------------------------------------------------------------------


def test_freeze_a_release_that_has_expired_is_refused(device, served, key, tmp_path):
    stale = make_signed(tmp_path / "stale", key, seed=1, version=6)
    stale = restated(stale, key, signed_s=now_s() - 1000, expires_s=now_s() - 1)
    assert "expired" in refused(device, stale, "expired")
    assert install_anyway(device, stale) == "expired"


def test_freeze_is_refused_where_the_clock_is_behind(device, served, key, tmp_path):
    """A board without a battery starts years ago; what was signed tells the time."""
    ahead = now_s() + 400 * 86400
    fresh = make_signed(tmp_path / "fresh", key, seed=1, version=6)
    fresh = restated(fresh, key, signed_s=ahead, expires_s=ahead + 1000)
    device.push(fresh)
    stale = make_signed(tmp_path / "stale", key, seed=2, version=7)
    stale = restated(stale, key, expires_s=ahead - 1)  # not expired by the device's own clock
    assert "expired" in refused(device, stale, "expired")


# --- mix-and-match ------------------------------------------------------------------------


def test_mix_and_match_of_two_signed_releases_is_refused(device, served, key, tmp_path):
    other = make_signed(tmp_path / "other", key, seed=1, version=6)
    for name in ("model.onnx", "canaries.npz"):
        mixed = tuple(
            NamedBlob(f.name, served.manifest.file(name).digest if f.name == name else f.digest)
            for f in other.blobs()
        )
        files = (*mixed, NamedBlob("manifest.json", sha256(other.manifest_bytes)))
        assert install_anyway(device, other, files=files) == "not_as_signed"
    mixed = with_signature(other, served.signature)
    assert install_anyway(device, mixed) == "not_as_signed"


@pytest.mark.parametrize(
    "changes",
    [
        {"max_relative_error": 0.5},
        {"threads": 64},
        {"runtime": "litert"},
        {"model": "canaries.npz"},
        {"canaries": "model.onnx"},
        {"release": "0" * 16},
    ],
)
def test_settings_other_than_were_signed_are_refused(device, served, key, tmp_path, changes):
    bundle = make_signed(tmp_path / "other", key, seed=1, version=6)
    assert install_anyway(device, bundle, **changes) == "not_as_signed"


# --- wrong software -----------------------------------------------------------------------


def test_wrong_software_for_another_architecture_is_refused(device, served, key, tmp_path):
    other = "aarch64" if platform.machine() != "aarch64" else "x86_64"
    bundle = make_signed(tmp_path / "other", key, seed=1, version=6, arch=other)
    assert f"it is for {other}" in refused(device, bundle, "wrong_target")


def test_wrong_software_for_another_profile_is_refused(device, served, key, tmp_path):
    device.trust(key, profile="kitchen")
    bundle = make_signed(tmp_path / "other", key, seed=1, version=6)
    assert "'test'" in refused(device, bundle, "wrong_target")
    device.trust(key, profile="test")
    assert device.push(bundle).health.healthy


# --- endless data -------------------------------------------------------------------------


def test_endless_data_is_refused_before_a_byte_of_it_is_sent(device, served, mallory, tmp_path):
    huge = make_bundle(tmp_path / "huge", seed=1, width=20_000)
    signed = make_signed(tmp_path / "m", mallory, seed=1)
    huge = with_signature(huge, signed.signature)
    before = device.files()
    with open_session("local") as session:
        session.ask(StatusJob(session.home), Status)
        already = session.count_newly_sent()
        with pytest.raises(DeviceError):
            push(huge, session, cache=device.cache)
        assert session.count_newly_sent() < 20_000, already
    assert device.files() == before


def test_endless_statements_are_refused(device, served, key):
    statement = read_statement(Statement, served.signature)
    files = tuple(SignedFile(f"file{n}", "0" * 64, 1) for n in range(2000))
    long = sign_statement(key, Statement(**{**vars(statement), "files": files, "version": 9}))
    assert len(long.statement) > 1 << 17
    assert install_anyway(device, served, signature=long) == "bad_signature"


def test_a_signature_file_without_end_is_read_up_to_a_limit(device, served):
    (served.path / SIGNATURE).write_bytes(b" " * (1 << 25))
    with pytest.raises(UserError, match=r"signature.json: cannot be read: larger than"):
        open_bundle(served.path)
    (served.path / SIGNATURE).unlink()
    (served.path / SIGNATURE).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"signature.json: cannot be read: not a regular file"):
        open_bundle(served.path)


# --- keys ---------------------------------------------------------------------------------


def test_wrong_key(device, served, mallory, tmp_path):
    evil = make_signed(tmp_path / "evil", mallory, seed=1, version=6)
    assert mallory.id in refused(device, evil, "untrusted_key")
    assert install_anyway(device, evil) == "untrusted_key"
    # The trusted key's name on the foreign key's signature.
    forged = Signature(served.signature.key, evil.signature.statement, evil.signature.signature)
    assert install_anyway(device, evil, signature=forged) == "bad_signature"


def test_a_statement_that_names_another_key_is_refused(device, served, key, mallory):
    statement = read_statement(Statement, served.signature)
    lie = Statement(**{**vars(statement), "key": mallory.public})
    signature = sign_statement(key, lie)
    assert install_anyway(device, served, signature=signature) == "bad_signature"


def test_revoked_key(device, served, key, tmp_path):
    newer = make_signed(tmp_path / "new", key, seed=1, version=6)
    device.push(newer)
    other = make_key("other")
    device.trust(other)
    device.revoke(key)
    last = make_signed(tmp_path / "last", key, seed=2, version=7)
    assert "revoked" in refused(device, last, "revoked_key")
    before = device.files()
    for forbidden in (device.rollback, lambda: device.trust(key)):
        with pytest.raises(DeviceError) as caught:
            forbidden()
        assert caught.value.kind == "revoked_key"
    assert device.files() == before
    assert device.push(make_signed(tmp_path / "good", other, seed=3, version=8)).health.healthy


def test_a_device_whose_last_key_was_revoked_takes_nothing(device, served, key, tmp_path):
    device.revoke(key)
    refused(device, make_bundle(tmp_path / "evil", seed=1, width=8), "unsigned")
    refused(device, make_signed(tmp_path / "old", key, seed=2, version=9), "revoked_key")
    assert device.status().current.version == 5


def test_the_previous_release_can_be_served_again_whatever_its_version(
    device, served, key, tmp_path
):
    device.push(make_signed(tmp_path / "new", key, seed=1, version=6))
    assert device.rollback().current.version == 5
    assert device.rollback().current.version == 6


@pytest.mark.parametrize("ask", [read_keys, lambda session: revoke_key(session, "k")])
def test_a_device_that_names_keys_that_are_none_costs_its_own_turn(ask):
    session = Session(HostileTransport("keys that are none"))
    with pytest.raises(DeviceError, match="its list of trusted keys holds an invalid key"):
        ask(session)
    session.close()


# --- the command --------------------------------------------------------------------------


def test_the_commands_tell_of_keys_and_refuse_with_exit_code_4(tmp_path, monkeypatch):
    for name in ("config", "home", "cache"):
        monkeypatch.setenv(f"EDGEKIT_{name.upper()}", str(tmp_path / name))
    assert edgekit("keys", "new").code == 0
    assert edgekit("keys", "new").code == 2
    bundle = make_signed(tmp_path / "b", find_signing_key(None))
    assert "takes releases signed with default" in edgekit("keys", "trust", "local").out
    assert edgekit("push", bundle.path, "local").code == 0
    write_bundle(
        tmp_path / "m.edgekit",
        {
            **{f.name: bundle.read(f.name) for f in bundle.manifest.files},
            "manifest.json": bundle.manifest_bytes,
            SIGNATURE: encode_signature(bundle.signature),
        },
    )
    assert edgekit("push", tmp_path / "m.edgekit", "local").code == 0
    unsigned = make_bundle(tmp_path / "u", seed=1, width=8)
    done = edgekit("push", unsigned.path, "local")
    assert (done.code, done.out) == (4, "")
    assert "not signed" in done.err
    lower = make_signed(tmp_path / "l", find_signing_key(None), seed=2, version=0)
    assert edgekit("push", lower.path, "local").code == 4
    assert edgekit("push", "--allow-downgrade", lower.path, "local").code == 0
    (one,) = json.loads(edgekit("keys", "list", "local", "--json").out)
    assert one["version"] == 0
    assert edgekit("keys", "revoke", "default", "local").code == 0
    assert edgekit("push", bundle.path, "local").code == 4


def test_signing_and_verifying_cost_at_most_100_ms_a_push(device, key, tmp_path):
    bundle = make_bundle(tmp_path / "b", width=8)
    trust = device.status().trust
    signer = Signer(key=key, version=6, valid_days=1)

    def cost():
        start = time.process_time()
        signature = signer.sign(bundle.manifest, bundle.manifest_bytes)
        permit = permit_downgrade(signature, trust)
        for _ in range(2):  # before anything is sent, and at the installation
            check_release(signature, permit, trust, arch=platform.machine(), clock_s=now_s())
        return time.process_time() - start

    assert min(cost() for _ in range(3)) < 0.1
