"""Headless Chromium, and the runtime that runs models in it."""

import pytest

from edgekit.errors import DeviceError, UserError
from edgekit.remote.web.chromium import find_chromium
from edgekit.remote.web.runtime_files import fetch_web_runtime


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
