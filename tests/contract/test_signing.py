"""Output and files of `edgekit keys` and of a build that signs."""

import json
import os

import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.signing.keys import find_signing_key, get_keys_folder
from tests.builders.fixtures import copy_cache_key
from tests.builders.projects import PROFILE, edgekit


@pytest.fixture(autouse=True)
def config(workplace, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(copy_cache_key(workplace.parent / "config")))


def release_table(project, text):
    path = project / "edgekit.toml"
    path.write_text(f"{path.read_text()}[release]\n{text}\n")


def build(project):
    return edgekit("build", "-C", project, "--step", "clean", "--max-drop", "5")


def test_without_a_key_the_build_says_that_its_bundle_is_not_signed(tiny):
    done = build(tiny)
    assert (
        done.code,
        "not signed; devices with a trusted key refuse it ('edgekit keys new' creates a key)"
        in done.out,
    ) == (0, True)
    assert open_bundle(tiny / "build" / PROFILE).signature is None


def test_with_a_key_folder_and_file_are_signed(tiny):
    assert "edgekit keys trust HOST" in edgekit("keys", "new").out
    done = build(tiny)
    key = find_signing_key(None)
    assert (done.code, f"signed with key default ({key.id})" in done.out) == (0, True), done.err
    out = tiny / "build" / PROFILE
    for path in (out, out / f"{PROFILE}.edgekit"):
        bundle = open_bundle(path)
        bundle.check()
        statement = bundle.statement()
        assert (statement.key, statement.profile) == (key.public, PROFILE)
        assert statement.expires_s - statement.signed_s == 365 * 86400
        assert statement.version == statement.signed_s
        assert {f.name for f in statement.files} == {"manifest.json", "model.onnx", "golden.npz"}


def test_edgekit_toml_names_key_version_and_validity(tiny):
    made = edgekit("keys", "new", "factory").out
    assert '[release] key = "factory"' in made
    assert "edgekit keys trust HOST --key factory" in made
    release_table(tiny, 'key = "factory"\nversion = 7\nvalid_days = 2')
    assert build(tiny).code == 0
    statement = open_bundle(tiny / "build" / PROFILE).statement()
    assert (statement.key, statement.version) == (find_signing_key("factory").public, 7)
    assert statement.expires_s - statement.signed_s == 2 * 86400


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('key = "factory"', "no key named factory"),
        ('key = "../x"', "not a key name"),
        ("version = 0", "release.version"),
        ("version = 99999999999999999999", "release.version"),
        ("valid_days = 0", "release.valid_days"),
    ],
)
def test_a_wrong_release_table_is_reported_before_the_work(tiny, table, says):
    release_table(tiny, table)
    done = build(tiny)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o644, "other users can read this private key"),
        (b"", 0o600, "not a private key"),
        (b"\xff" * 100_000, 0o600, "not a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "not a private"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_a_bad_request(tiny, content, mode, says):
    edgekit("keys", "new")
    path = get_keys_folder() / "default.pem"
    if content is not None:
        path.write_bytes(content)
    path.chmod(mode)
    for done in (build(tiny), edgekit("keys", "list")):
        assert (done.code, says in done.err) == (2, True), done.err
        assert "Traceback" not in done.err


def test_a_key_of_another_kind_is_a_bad_request(workplace):
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    get_keys_folder().mkdir(parents=True)
    text = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path = get_keys_folder() / "default.pem"
    path.write_bytes(text)
    path.chmod(0o600)
    done = edgekit("keys", "list")
    assert (done.code, "not an Ed25519 key" in done.err) == (2, True)


def test_private_keys_are_for_their_owner_whatever_the_umask(workplace):
    before = os.umask(0)
    try:
        assert edgekit("keys", "new").code == 0
    finally:
        os.umask(before)
    assert get_keys_folder().stat().st_mode & 0o777 == 0o700
    assert (get_keys_folder() / "default.pem").stat().st_mode & 0o777 == 0o600


def test_a_revoked_key_signs_nothing_more(tiny):
    edgekit("keys", "new")
    assert edgekit("keys", "revoke", "default").code == 0
    (one,) = json.loads(edgekit("keys", "list", "--json").out)
    assert one["revoked"]
    assert edgekit("keys", "new").code == 2  # the name of a revoked key is not used again
    done = build(tiny)
    assert (done.code, "not signed" in done.out) == (0, True)


@pytest.mark.parametrize("key", ["nobody", "none.pub", "0" * 64, "../../etc/passwd", ""])
def test_an_invalid_key_is_a_bad_request(workplace, key):
    done = edgekit("keys", "trust", "local", "--key", key)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("edgekit: ")
    assert "Traceback" not in done.err


def test_a_public_key_file_can_be_handed_out(workplace):
    edgekit("keys", "new")
    shown = json.loads(edgekit("keys", "list", "--json").out)[0]
    file = get_keys_folder() / "default.pub"
    for text in (file, shown["public"], "default"):
        (one,) = json.loads(edgekit("keys", "trust", "local", "--key", text, "--json").out)
        assert [key["public"] for key in one["keys"]] == [shown["public"]]
