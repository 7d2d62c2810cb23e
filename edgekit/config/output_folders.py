"""Folders that the user named for output: checked first, and written whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import UserError, reason

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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


def check_output_file(out: Path) -> None:
    """Check that a file may be written or replaced.

    Raises:
        UserError: Its folder is missing or cannot be written, or there is something other than a
            regular file, such as a device, which must not be replaced by one.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out}: no folder {out.parent}", hint="create the folder first")
    check_writable(out.parent, hint="choose another folder")
    try:
        mode = out.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {reason(error)}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{out}: exists and is not a regular file, so it is not replaced")


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


@contextmanager
def create_folder(given: Path) -> Iterator[Path]:
    """Yield a new folder to write; it gets the given name once the block ends without an error.

    Args:
        given: A new folder, or an empty one other than the current folder.

    Raises:
        UserError: It is something else, or its parent is missing or cannot be written.
    """
    target = given.resolve()
    _check_target(given, target)
    scratch = target.parent / f".{target.name}-{secrets.token_hex(4)}"
    try:
        scratch.mkdir()
        yield scratch
        _move_into_place(scratch, target, given)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace_folder(new: Path, target: Path) -> None:
    """Give a folder the name of another one, which is removed.

    At every moment there is one of that name, where kernel and file system can exchange two names.
    Elsewhere there is none for a moment.

    Raises:
        OSError: A folder cannot be renamed.
    """
    if _exchange(new, target):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders at once; return whether that is possible here."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # not Linux, or an old C library
        return False
    names = (os.fsencode(one), os.fsencode(other))
    failed = rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    if failed and ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    return not failed


def _check_target(given: Path, target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()):
            raise UserError(f"{given}: is not empty", hint="choose a new folder")
        if target == Path.cwd():
            raise UserError(f"{given}: is the current folder", hint="choose a new folder in it")
    elif target.exists():
        raise UserError(f"{given}: exists, and is not a folder", hint="choose a new folder")
    elif not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder", hint="create it first")
    check_writable(target.parent, hint="choose another folder")


def _move_into_place(scratch: Path, target: Path, given: Path) -> None:
    """Rename a complete folder to its final name; only an empty folder is replaced."""
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{given}: is no longer empty", hint="choose a new folder") from error
        raise
