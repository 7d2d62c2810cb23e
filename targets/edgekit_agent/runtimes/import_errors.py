"""Failures of imports of a runtime and of numpy, in one line."""

from __future__ import annotations

import os
from typing import Optional

from edgekit_agent.boot.mounts import forbids_programs
from edgekit_agent.failures import AgentError


def make_import_error(
    what: str, error: ImportError, site: Optional[str], *, hint: str
) -> AgentError:
    """Return the failure of an import.

    Args:
        what: what failed, in words.
        error: the error; numpy writes a page about it, whose last line is the reason.
        site: folder of the packages, if they have one of their own.
        hint: a way to solve it.
    """
    if site is not None and forbids_programs(os.path.expanduser(site)):
        return AgentError(
            "noexec",
            f"{site} is on a file system from which no program may run (noexec)",
            hint="mount it without noexec, or install into another folder",
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return AgentError("missing_runtime", f"{what}: {reason}", hint=hint)
