"""Versions of the packages on which a candidate's bytes depend."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgekit.compression.pass_specs import TENSORFLOW
from edgekit.errors import UserError, make_missing_extra_error

_LITERT = ("ai-edge-litert", "flatbuffers")
# Distributions of the same package under other names.
_OTHER_NAMES = {TENSORFLOW: ("tensorflow", "tf-nightly", "tf-nightly-cpu")}


def get_tool_version(package: str) -> str:
    """Return the installed version of a package.

    Raises:
        UserError: The package is not installed.
    """
    found = _find_version(package)
    if found is not None:
        return found
    if package in _LITERT:
        raise make_missing_extra_error(package, "litert")
    if package == TENSORFLOW:
        raise make_missing_extra_error("tensorflow", "tensorflow")
    raise UserError(f"{package} is not installed", hint=f"pip install {package}")


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    return _find_version(package) is not None


def _find_version(package: str) -> str | None:
    for name in (package, *_OTHER_NAMES.get(package, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
