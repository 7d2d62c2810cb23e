"""Fixtures of the tests of apps: a package with a tiny model and real wheels, and a device."""

import pytest

from tests.builders.apps.device import Device
from tests.builders.apps.packages import draft_package
from tests.builders.servers import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A build folder with a model of five classes."""
    folder = tmp_path_factory.mktemp("bundle") / "leaf"
    make_bundle(folder, width=5)
    return folder


@pytest.fixture(scope="session")
def draft(bundle):
    return draft_package(bundle)


@pytest.fixture(scope="session")
def package(draft, tmp_path_factory):
    """The package file, version 1.0."""
    return draft.write(tmp_path_factory.mktemp("package") / "leaf.run")


@pytest.fixture(scope="session")
def newer_package(draft, tmp_path_factory):
    """The package file of version 1.1, with another page."""
    changed = draft.replace({"pages/index.html": b"<title>Version 1.1</title>"}, version="1.1")
    return changed.write(tmp_path_factory.mktemp("newer") / "leaf.run")


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "device")


@pytest.fixture(scope="module")
def installed(package, tmp_path_factory):
    """A device with the app, for tests that change nothing on it."""
    device = Device(tmp_path_factory.mktemp("device"))
    done = device.install(package)
    assert done.returncode == 0, done.stderr
    return device
