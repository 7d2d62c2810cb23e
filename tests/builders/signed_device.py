"""A device on this machine that trusts a key, for tests of signatures."""

import shutil

import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.errors import DeviceError
from edgekit.remote.session import open_session
from edgekit.remote.upload import sha256
from edgekit.signing.keys import find_signing_key, make_key
from edgekit_agent.jobs import InstallJob, NamedBlob
from edgekit_agent.results import Status
from tests.builders.signed import Device, make_signed


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
    """Return the release that the device serves."""
    return open_bundle(tmp_path / "t/served")


def assert_refused(device, bundle, kind, *, allow_downgrade=False):
    """Assert that a push is refused without changes on the device; return the message."""
    before = device.files()
    with pytest.raises(DeviceError) as caught:
        device.push(bundle, allow_downgrade=allow_downgrade)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in caught.value.message
    assert device.files() == before
    return str(caught.value)


def install_anyway(device, bundle, *, signature="own", **changes):
    """Send the install job of a bundle without asking for permission first."""
    manifest = bundle.manifest
    release = sha256(bundle.manifest_bytes)
    facts = {
        "release": release[:16],
        "files": (*bundle.blobs(), NamedBlob("manifest.json", release)),
        "model": manifest.model,
        "runtime": manifest.runtime.name,
        "threads": manifest.runtime.threads,
        "site": None,
        "golden_samples": manifest.golden_samples,
        "max_relative_error": manifest.max_relative_error,
        "signature": bundle.signature if signature == "own" else signature,
        **changes,
    }
    before = device.files()
    with open_session("local") as session, pytest.raises(DeviceError) as caught:
        session.ask(InstallJob(home=session.home, **facts), Status)
    assert device.files() == before
    return caught.value.kind
