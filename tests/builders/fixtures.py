"""Shared fixtures: a separate working folder, a finished build, and headless Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.cache.integrity import KEY_FILE, compute_seal, get_config_folder
from edgekit.errors import DeviceError, UserError
from edgekit.remote.web.chromium import find_chromium
from edgekit.remote.web.runtime_files import fetch_web_runtime
from tests.builders.projects import copy_digits, spawn, write_tiny


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """One cache for all builds of a run, so that nothing is built twice."""
    return tmp_path_factory.mktemp("cache")


def copy_cache_key(folder: Path) -> Path:
    """Make a configuration folder in which the entries of the shared cache are valid."""
    compute_seal(b"")  # makes the key
    folder.mkdir(mode=0o700)
    shutil.copy2(get_config_folder() / KEY_FILE, folder)
    return folder


@pytest.fixture
def workplace(shared_cache, tmp_path, monkeypatch):
    """A separate current folder, home and device; builds come from the shared cache."""
    for name in ("home", "data", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EDGEKIT_CACHE", str(shared_cache))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "device"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def digits(workplace):
    """The example project."""
    return copy_digits(workplace / "digits")


@pytest.fixture
def tiny(workplace):
    """A project whose model is one matrix."""
    return write_tiny(workplace / "tiny")


@pytest.fixture(scope="session")
def built(shared_cache, tmp_path_factory):
    """The first build of the example project, and its result; read-only."""
    project = copy_digits(tmp_path_factory.mktemp("built") / "digits")
    done = spawn("build", "-C", project, "--json", EDGEKIT_CACHE=shared_cache)
    assert done.code == 0, done.err
    return project, done


@pytest.fixture(scope="session")
def chromium():
    """The path of Chromium."""
    try:
        return find_chromium()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def web_runtime(shared_cache):
    """The files of onnxruntime-web, in the cache that builds share."""
    try:
        return fetch_web_runtime(shared_cache / "web-runtime")
    except UserError as error:
        pytest.skip(str(error))
