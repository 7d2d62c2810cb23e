"""The attacks that The Update Framework lists, against a device that trusts a key.

Each is refused with one line, and nothing on the device is changed.
"""

import contextlib
import platform

import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.bundle.manifest import SIGNATURE
from edgekit.errors import DeviceError, UserError
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit.remote.upload import sha256
from edgekit.signing.releases import permit_downgrade, sign_statement
from edgekit_agent.jobs import NamedBlob, StatusJob
from edgekit_agent.results import Status
from edgekit_agent.trust.signatures import read_statement
from edgekit_agent.trust.statements import Permit, Signature, SignedFile, Statement
from tests.builders.servers import make_bundle
from tests.builders.signed import make_signed, now_s, sign_changed, with_signature
from tests.builders.signed_device import (
    assert_refused,
    device,
    install_anyway,
    key,
    mallory,
    served,
    template,
)

__all__ = ["device", "key", "mallory", "served", "template"]


def test_arbitrary_software_that_is_not_signed_is_refused(device, served, tmp_path):
    unsigned = make_bundle(tmp_path / "evil", seed=1, width=8)
    assert "not signed" in assert_refused(device, unsigned, "unsigned")
    assert install_anyway(device, unsigned) == "unsigned"


def test_arbitrary_software_under_a_copied_signature_is_refused(device, served, tmp_path):
    evil = with_signature(make_bundle(tmp_path / "evil", seed=1, width=8), served.signature)
    with pytest.raises(UserError, match="belongs to other files"):
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
        assert "signature" in assert_refused(device, edited, "bad_signature")
        assert install_anyway(device, edited) == "bad_signature"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[" * 100_000, '{"key":1}', "\ud800", "1e999", "9" * 10_000, '{"a":' * 9000],
)
def test_an_invalid_statement_is_refused_even_if_it_is_signed(device, served, key, text):
    mark = b""
    with contextlib.suppress(UnicodeEncodeError):
        mark = key.sign(b"edgekit release 1\0" + text.encode())
    bundle = with_signature(served, Signature(key.public, text, mark.hex()))
    assert install_anyway(device, bundle) == "bad_signature"


def test_rollback_to_a_lower_version_is_refused(device, served, key, tmp_path):
    old = make_signed(tmp_path / "old", key, seed=1, version=4)
    assert "4 is lower than 5" in assert_refused(device, old, "lower_version")
    assert install_anyway(device, old) == "lower_version"


def test_a_lower_version_is_refused_after_a_rollback_of_the_device(device, served, key, tmp_path):
    newest = make_signed(tmp_path / "new", key, seed=1, version=7)
    device.push(newest)
    device.rollback()
    old = make_signed(tmp_path / "old", key, seed=2, version=6)
    assert_refused(device, old, "lower_version")
    assert device.push(newest).health.healthy


def test_a_lower_version_needs_a_signed_permission(device, served, key, mallory, tmp_path):
    old = make_signed(tmp_path / "old", key, seed=1, version=4)
    key.path.rename(key.path.with_suffix(".away"))
    before = device.files()
    with pytest.raises(DeviceError, match="the device trusts none of your keys"):
        device.push(old, allow_downgrade=True)
    assert device.files() == before
    trust = device.status().trust
    forged = sign_statement(mallory, Permit(mallory.public, "0" * 64, trust.nonce, now_s()))
    assert install_anyway(device, old, permit=forged) == "untrusted_key"
    key.path.with_suffix(".away").rename(key.path)
    assert device.push(old, allow_downgrade=True).health.healthy
    assert device.status().trust.version == 4


def test_a_permission_for_a_lower_version_is_valid_once_for_one_release(
    device, served, key, tmp_path
):
    old = make_signed(tmp_path / "old", key, seed=1, version=4)
    older = make_signed(tmp_path / "older", key, seed=2, version=3)
    permit = permit_downgrade(old.signature, device.status().trust)
    assert install_anyway(device, older, permit=permit) == "bad_permit"
    # A signed release is no leave, and leave is no release.
    assert install_anyway(device, old, permit=served.signature) == "bad_signature"
    assert install_anyway(device, old, signature=permit) == "bad_signature"
    device.push(old, allow_downgrade=True)
    device.push(sign_changed(served, key, version=9))
    assert install_anyway(device, old, permit=permit) == "bad_permit"


def test_freeze_a_release_that_has_expired_is_refused(device, served, key, tmp_path):
    stale = make_signed(tmp_path / "stale", key, seed=1, version=6)
    stale = sign_changed(stale, key, signed_s=now_s() - 1000, expires_s=now_s() - 1)
    assert "expired" in assert_refused(device, stale, "expired")
    assert install_anyway(device, stale) == "expired"


def test_freeze_is_refused_if_the_clock_is_behind(device, served, key, tmp_path):
    """A board without a battery starts years ago; what was signed tells the time."""
    ahead = now_s() + 400 * 86400
    fresh = make_signed(tmp_path / "fresh", key, seed=1, version=6)
    fresh = sign_changed(fresh, key, signed_s=ahead, expires_s=ahead + 1000)
    device.push(fresh)
    stale = make_signed(tmp_path / "stale", key, seed=2, version=7)
    stale = sign_changed(stale, key, expires_s=ahead - 1)  # not expired by the device's own clock
    assert "expired" in assert_refused(device, stale, "expired")


def test_mix_and_match_of_two_signed_releases_is_refused(device, served, key, tmp_path):
    other = make_signed(tmp_path / "other", key, seed=1, version=6)
    for name in ("model.onnx", "golden.npz"):
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
        {"model": "golden.npz"},
        {"golden_samples": "model.onnx"},
        {"release": "0" * 16},
    ],
)
def test_settings_other_than_were_signed_are_refused(device, served, key, tmp_path, changes):
    bundle = make_signed(tmp_path / "other", key, seed=1, version=6)
    assert install_anyway(device, bundle, **changes) == "not_as_signed"


def test_wrong_software_for_another_architecture_is_refused(device, served, key, tmp_path):
    other = "aarch64" if platform.machine() != "aarch64" else "x86_64"
    bundle = make_signed(tmp_path / "other", key, seed=1, version=6, arch=other)
    assert f"it is for {other}" in assert_refused(device, bundle, "wrong_target")


def test_wrong_software_for_another_profile_is_refused(device, served, key, tmp_path):
    device.trust(key, profile="kitchen")
    bundle = make_signed(tmp_path / "other", key, seed=1, version=6)
    assert "'test'" in assert_refused(device, bundle, "wrong_target")
    device.trust(key, profile="test")
    assert device.push(bundle).health.healthy


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
