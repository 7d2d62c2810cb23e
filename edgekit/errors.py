"""Every failure edgekit expects, with the exit code it ends the command with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar

from edgekit.printable import printable, printable_lines, printable_message


class ExitCode(IntEnum):
    """How a command ended. The numbers are a contract."""

    DONE = 0
    OUR_FAULT = 1
    BAD_REQUEST = 2
    NOTHING_HOLDS = 3
    DEVICE = 4
    UNKNOWN_STATE = 5
    INTERRUPTED = 130


class EdgekitError(Exception):
    """A failure with a message for the user and a hint on what to do.

    Args:
        message: what is wrong and where, in one line; further lines are indented.
        hint: what to do about it, in one line or several; empty when there is nothing to add.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.OUR_FAULT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = printable_message(message)
        self.hint = printable_lines(hint)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UserError(EdgekitError):
    """The request or its input is wrong; trying again unchanged will fail again.

    Args:
        details: lines of a list that the message or the hint announces.
    """

    exit_code = ExitCode.BAD_REQUEST

    def __init__(self, message: str, *, hint: str = "", details: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = tuple(map(printable, details))

    def __str__(self) -> str:
        margin = "\n    " if self.hint else "\n  "
        return super().__str__() + "".join(f"{margin}{line}" for line in self.details)


class PassError(EdgekitError):
    """A pass returned something other than what it promised: our fault."""


class PassCrash(PassError):
    """A pass ended in an exception that nobody expected.

    Args:
        report: the traceback, versions and the graph without weights, to be written to a file.
    """

    def __init__(self, message: str, *, report: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report


class DeviceError(EdgekitError):
    """A device could not be reached or failed.

    Args:
        transient: whether the same command may succeed when run again.
        kind: what the agent calls the failure; empty where the agent had no say.
    """

    exit_code = ExitCode.DEVICE

    def __init__(
        self, message: str, *, hint: str = "", transient: bool = False, kind: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient
        self.kind = kind


class UnknownStateError(DeviceError):
    """It is unknown whether a device serves the new release or the old one."""

    exit_code = ExitCode.UNKNOWN_STATE


def reason(error: Exception) -> str:
    """Why an operation of the system failed, in words, without error numbers and paths."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def first_line(error: BaseException) -> str:
    """What a runtime says of a failure, without the stack that some put below it."""
    return str(error).strip().partition("\n")[0]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the known one that it is most like, if any is."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(f"{package} is not installed", hint=f"pip install 'edgekit[{extra}]'")


class PassRefused(EdgekitError):
    """A pass does not apply to this model; the reason is one line for the user.

    Args:
        least_bytes: smallest transfer size that the pass can reach, where a smaller one was asked.
    """

    exit_code = ExitCode.BAD_REQUEST

    def __init__(self, message: str, *, hint: str = "", least_bytes: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.least_bytes = least_bytes
