"""Versions of the packages on which a candidate's bytes depend."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgekit.compression.all_passes import TENSORFLOW
from edgekit.errors import UserError, make_missing_extra_error

_LITERT = ("ai-edge-litert", "flatbuffers")


def get_tool_version(package: str) -> str:
    """Return the installed version of a package.

    Raises:
        UserError: The package is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError as error:
        if package in _LITERT:
            raise make_missing_extra_error(package, "litert") from error
        if package == TENSORFLOW:
            raise make_missing_extra_error("tensorflow", "tensorflow") from error
        raise UserError(f"{package} is not installed", hint=f"pip install {package}") from error


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
