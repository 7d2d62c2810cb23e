"""Failures of jobs, as records with a stable kind."""

from __future__ import annotations

import errno
import os
import traceback
from typing import Dict, Tuple

from edgekit_agent.worker_results import Failure

_ERRNO: Dict[int, Tuple[str, str]] = {
    errno.ENOSPC: ("no_space", "free some disk space on the device, then run the command again"),
    errno.EDQUOT: ("no_space", "the user's disk quota is used up"),
    errno.EFBIG: (
        "no_space",
        "a file size limit was exceeded (ulimit -f, or that of the file system)",
    ),
    errno.EROFS: (
        "read_only",
        "the file system is mounted read-only; choose another folder (--home)",
    ),
    errno.EACCES: ("permission", "make the login user the owner of this folder"),
    errno.EPERM: ("permission", "make the login user the owner of this folder"),
    errno.ENOENT: ("missing_file", ""),
    errno.ENOTDIR: ("missing_file", ""),
    errno.ELOOP: ("missing_file", "a symbolic link points to itself"),
    errno.ENAMETOOLONG: ("missing_file", "choose shorter names of folders"),
    errno.EISDIR: ("missing_file", "there is a folder where a file is expected"),
    errno.EIO: ("disk_failed", "the device's storage reports an error; see dmesg on the device"),
}


class AgentError(Exception):
    """A failure that the agent expects, with its stable kind.

    Args:
        kind: one or two lower-case words; programs tell failures apart by it.
        message: the problem and its place, in one line.
        hint: a way to solve it; empty when there is nothing to add.
        transient: whether a retry may help.
    """

    def __init__(self, kind: str, message: str, *, hint: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.failure = Failure(kind=kind, message=message, hint=hint, transient=transient)


class PeerGone(Exception):
    """The sender of the job hung up, so nobody reads the answer."""


def to_failure(error: Exception) -> Failure:
    """Convert an exception to the record that is sent to the host."""
    if isinstance(error, AgentError):
        return error.failure
    if isinstance(error, OSError) and error.errno in _ERRNO:
        return _from_os_error(error, error.errno)
    if isinstance(error, MemoryError):
        return Failure(
            "no_memory", "the device ran out of memory", "use a smaller model or free memory"
        )
    frames = traceback.extract_tb(error.__traceback__)
    location = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return Failure(
        "internal", f"{type(error).__name__}: {error}", location and f"raised at {location}"
    )


def _from_os_error(error: OSError, number: int) -> Failure:
    kind, hint = _ERRNO[number]
    reason = os.strerror(number)
    return Failure(kind, f"{error.filename}: {reason}" if error.filename else reason, hint)
