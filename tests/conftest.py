"""Where real models and emulated devices are found, and a home of its own for every test run."""

import os
from pathlib import Path

import pytest

from tests.workplaces import built, digits, shared_cache, tiny, workplace

__all__ = ["built", "digits", "shared_cache", "tiny", "workplace"]

BESIDE = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def zoo():
    """The folder of real models."""
    found = Path(os.environ.get("EDGEKIT_ZOO", BESIDE / "zoo"))
    if not (found / "MANIFEST.toml").is_file():
        pytest.skip(f"no real models in {found} (EDGEKIT_ZOO)")
    return found


@pytest.fixture(scope="session")
def device_scripts():
    """The folder of scripts that build and boot emulated devices."""
    found = Path(os.environ.get("EDGEKIT_DEVICES", BESIDE / "devices"))
    if not (found / "boot.sh").is_file():
        pytest.skip(f"no emulated devices in {found} (EDGEKIT_DEVICES)")
    return found
