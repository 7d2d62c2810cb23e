"""Waiting until another agent has finished changing the home."""

from __future__ import annotations

import fcntl
import os
import time

from edgekit_agent.failures import AgentError

_RETRY_S = 0.1


def wait_until_unlocked(home: str, seconds: float) -> None:
    """Wait until an agent that was cut off in the middle of an install has finished or given up.

    Raises:
        AgentError: ``busy``; it is still at work after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    path = os.path.join(home, "lock")
    if not os.path.exists(path):
        return  # no agent has ever changed this home
    with open(path, "rb") as file:
        while not _is_free(file.fileno()):
            if time.monotonic() > deadline:
                raise AgentError(
                    "busy",
                    f"{home}: another install is in progress",
                    hint="try again later",
                    transient=True,
                )
            time.sleep(_RETRY_S)


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
