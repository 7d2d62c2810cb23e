"""Revoked, wrong and unknown signing keys, and the time that signing takes."""

import json
import platform
import time

import pytest

from edgekit.bundle.bundle_file import encode_signature, write_bundle
from edgekit.bundle.manifest import SIGNATURE
from edgekit.errors import DeviceError
from edgekit.remote.session import Session
from edgekit.remote.trust import read_trust as read_keys
from edgekit.remote.trust import revoke_key
from edgekit.signing.keys import find_signing_key, make_key
from edgekit.signing.releases import Signer, permit_downgrade, sign_statement
from edgekit_agent.trust.signatures import check_release, read_statement
from edgekit_agent.trust.statements import Signature, Statement
from tests.attacks.devices.test_hostile_devices import HostileTransport
from tests.builders.projects import edgekit
from tests.builders.servers import make_bundle
from tests.builders.signed import make_signed, now_s
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


def test_a_release_signed_with_a_wrong_key_is_refused(device, served, mallory, tmp_path):
    evil = make_signed(tmp_path / "evil", mallory, seed=1, version=6)
    assert mallory.id in assert_refused(device, evil, "untrusted_key")
    assert install_anyway(device, evil) == "untrusted_key"
    # The trusted key's name on the foreign key's signature.
    forged = Signature(served.signature.key, evil.signature.statement, evil.signature.signature)
    assert install_anyway(device, evil, signature=forged) == "bad_signature"


def test_a_statement_that_names_another_key_is_refused(device, served, key, mallory):
    statement = read_statement(Statement, served.signature)
    lie = Statement(**{**vars(statement), "key": mallory.public})
    signature = sign_statement(key, lie)
    assert install_anyway(device, served, signature=signature) == "bad_signature"


def test_a_release_signed_with_a_revoked_key_is_refused(device, served, key, tmp_path):
    newer = make_signed(tmp_path / "new", key, seed=1, version=6)
    device.push(newer)
    other = make_key("other")
    device.trust(other)
    device.revoke(key)
    last = make_signed(tmp_path / "last", key, seed=2, version=7)
    assert "revoked" in assert_refused(device, last, "revoked_key")
    before = device.files()
    for forbidden in (device.rollback, lambda: device.trust(key)):
        with pytest.raises(DeviceError) as caught:
            forbidden()
        assert caught.value.kind == "revoked_key"
    assert device.files() == before
    assert device.push(make_signed(tmp_path / "good", other, seed=3, version=8)).health.healthy


def test_a_device_whose_last_key_was_revoked_accepts_no_release(device, served, key, tmp_path):
    device.revoke(key)
    assert_refused(device, make_bundle(tmp_path / "evil", seed=1, width=8), "unsigned")
    assert_refused(device, make_signed(tmp_path / "old", key, seed=2, version=9), "revoked_key")
    assert device.status().current.version == 5


def test_the_previous_release_can_be_served_again_whatever_its_version(
    device, served, key, tmp_path
):
    device.push(make_signed(tmp_path / "new", key, seed=1, version=6))
    assert device.rollback().current.version == 5
    assert device.rollback().current.version == 6


@pytest.mark.parametrize("ask", [read_keys, lambda session: revoke_key(session, "k")])
def test_invalid_keys_from_a_device_fail_that_device_only(ask):
    session = Session(HostileTransport("keys that are none"))
    with pytest.raises(DeviceError, match="its list of trusted keys contains an invalid key"):
        ask(session)
    session.close()


def test_the_commands_show_keys_and_refuse_with_exit_code_4(tmp_path, monkeypatch):
    for name in ("config", "home", "cache"):
        monkeypatch.setenv(f"EDGEKIT_{name.upper()}", str(tmp_path / name))
    assert edgekit("keys", "new").code == 0
    assert edgekit("keys", "new").code == 2
    bundle = make_signed(tmp_path / "b", find_signing_key(None))
    assert "accepts releases signed with default" in edgekit("keys", "trust", "local").out
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
