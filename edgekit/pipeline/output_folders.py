"""Checks that files can be created in a folder that the user named for output."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgekit.errors import UserError, reason


def check_writable(folder: Path, *, hint: str = "") -> None:
    """Check that a folder, which may not exist yet, can be created and written to.

    Raises:
        UserError: It cannot; names the existing folder that does not allow it.
    """
    standing = find_existing(folder)
    if not standing.is_dir():
        raise UserError(f"{folder}: cannot be written: {standing} is not a folder", hint=hint)
    if not os.access(standing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written: no permission in {standing}", hint=hint)
    if fault := find_fault(standing):
        where = "" if standing == folder else f"{folder}: cannot be written: "
        raise UserError(f"{where}{fault}", hint=hint)


def find_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))


def find_fault(folder: Path) -> str:
    """Return why no file can be created in an existing folder; empty if one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"no file can be created in {folder}: {reason(error)}"
