"""Versions of the packages on which a candidate's bytes depend."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgekit.errors import make_missing_extra_error


def get_tool_version(package: str) -> str:
    """Return the installed version of a package; only those of the litert extra may be missing.

    Raises:
        UserError: The package is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise make_missing_extra_error(package, "litert") from error
