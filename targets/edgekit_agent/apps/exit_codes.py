"""Exit codes of the commands of apps, and the line that reports a failure."""

from __future__ import annotations

import sys
from typing import Callable

from edgekit_agent.failures import to_failure
from edgekit_agent.worker_results import Failure

DONE, INTERNAL, WRONG_REQUEST, FAILS, DEVICE, INTERRUPTED = 0, 1, 2, 3, 4, 130
_CODES = {
    "internal": INTERNAL,
    "unsuitable": WRONG_REQUEST,
    "foreign_file": WRONG_REQUEST,
    "foreign_home": WRONG_REQUEST,
    "bad_job": WRONG_REQUEST,
    "already_runs": WRONG_REQUEST,
    "no_port": WRONG_REQUEST,
    "no_previous": WRONG_REQUEST,
    "no_such_name": WRONG_REQUEST,
    "unsigned": WRONG_REQUEST,
    "not_as_signed": WRONG_REQUEST,
    "bad_signature": WRONG_REQUEST,
}
# The agent's own hints name options that apps do not have.
_HINTS = {
    "read_only": "run it as the user who installed the app, or choose another folder: --prefix",
    "foreign_home": "choose another folder: --prefix",
}


def run_and_report(name: str, act: Callable[[], int], *, corrupt: int = FAILS) -> int:
    """Run a command; report a failure in one line, and return the exit status.

    Args:
        name: begins the line.
        act: the command.
        corrupt: exit status where a file is damaged.
    """
    try:
        return act()
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted; run the command again\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - reported without a traceback
        failure = to_failure(error)
        sys.stderr.write(f"{name}: {describe(failure)}\n")
        if failure.kind == "corrupt":
            return corrupt
        return _CODES.get(failure.kind, DEVICE)


def describe(failure: Failure) -> str:
    """Return a failure and its hint in one line."""
    chosen = _HINTS.get(failure.kind, failure.hint)
    hint = f" ({chosen})" if chosen else ""
    return " ".join(f"{failure.message}{hint}".split())
