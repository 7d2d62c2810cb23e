"""Locations of real models and emulated devices, and a separate home for every test run."""

import os
from pathlib import Path

import pytest

from tests.builders.fixtures import (
    built,
    chromium,
    digits,
    shared_cache,
    tiny,
    web_runtime,
    workplace,
)

__all__ = ["built", "chromium", "digits", "shared_cache", "tiny", "web_runtime", "workplace"]

# How many threads a library starts; read when it is loaded, in tests and in what they start.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
BESIDE = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config):
    """Set the environment of all tests.

    Builds in which nothing passes do not learn, unless a test asks for it. Each process of a
    parallel run has one thread of the libraries that take all cores.
    """
    os.environ.setdefault("EDGEKIT_EFFORT", "quick")
    if config.getoption("numprocesses", None):
        for name in THREADS:
            os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(config, items):
    """Start a parallel run with the slow files, so that none of them is left at its end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def found_or_skipped(variable: str, usual: Path, mark: str) -> Path:
    found = Path(os.environ.get(variable, usual))
    if not (found / mark).is_file():
        pytest.skip(f"no {mark} in {found} ({variable})")
    return found


@pytest.fixture(scope="session", autouse=True)
def no_keys(tmp_path_factory):
    """A folder of keys that is empty, so that the user's own sign nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def zoo():
    """The folder of real models."""
    return found_or_skipped("EDGEKIT_ZOO", BESIDE / "zoo", "MANIFEST.toml")


@pytest.fixture(scope="session")
def device_scripts():
    """The folder of scripts that build and boot emulated devices."""
    return found_or_skipped("EDGEKIT_DEVICES", BESIDE / "devices", "boot.sh")
