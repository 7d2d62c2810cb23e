"""Conversion of failures of this machine, such as a full disk, to errors of edgekit."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.config.output_folders import find_existing, find_fault
from edgekit.errors import UserError

# Errors of the folders that the user named for output, not of edgekit.
_UNWRITABLE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def convert_failure(error: OSError | MemoryError) -> UserError | None:
    """Return the error for the user; ``None`` if the fault is in edgekit."""
    if isinstance(error, MemoryError):
        return UserError(
            "out of memory",
            hint="use fewer samples (max_samples of a pass), a smaller model, or a machine with "
            "more memory",
        )
    place = error.filename2 or error.filename or "the output"
    if error.errno in _UNWRITABLE:
        return UserError(f"{place}: cannot be written: {error.strerror}")
    if error.errno == errno.ENOENT and isinstance(place, str):
        fault = find_fault(find_existing(Path(place)))  # such as below /proc
        return UserError(f"{place}: cannot be written: {fault}") if fault else None
    return None


@contextmanager
def convert_failures() -> Iterator[None]:
    """Raise failures of this machine as errors of edgekit.

    Raises:
        UserError: A file cannot be written, or the memory is used up.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        converted = convert_failure(error)
        if converted is None:
            raise
        raise converted from error
