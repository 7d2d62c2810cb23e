"""Expected failures of edgekit, each with the exit code of the command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import ClassVar

from edgekit.printable import escape_lines, escape_message, escape_text


class ExitCode(IntEnum):
    """Exit code of a command; the numbers are a contract."""

    DONE = 0
    OUR_FAULT = 1
    BAD_REQUEST = 2
    NOTHING_HOLDS = 3
    DEVICE = 4
    UNKNOWN_STATE = 5
    INTERRUPTED = 130


class EdgekitError(Exception):
    """A failure with a message for the user and a hint on how to resolve it.

    Args:
        message: What is wrong and where, in one line; further lines are indented.
        hint: How to resolve it, in one or more lines; empty if there is nothing to add.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.OUR_FAULT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = escape_message(message)
        self.hint = escape_lines(hint)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UserError(EdgekitError):
    """A wrong request or input; the same request will fail again.

    Args:
        details: Lines of a list that the message or the hint announces.
    """

    exit_code = ExitCode.BAD_REQUEST

    def __init__(self, message: str, *, hint: str = "", details: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = tuple(map(escape_text, details))

    def __str__(self) -> str:
        margin = "\n    " if self.hint else "\n  "
        return super().__str__() + "".join(f"{margin}{line}" for line in self.details)


class PluginWarning(UserWarning):
    """A plugin cannot be used and is left out."""


class ArgumentError(UserError):
    """A wrong argument of a function.

    Args:
        names: Name of the argument, or the names of arguments that contradict each other.
        problem: The rest of the message: ``NAME: problem``, or ``NAME and NAME problem``.
    """

    def __init__(self, names: str | tuple[str, ...], problem: str, *, hint: str = "") -> None:
        self.names = (names,) if isinstance(names, str) else names
        self.problem = problem
        colon = "" if len(self.names) > 1 else ":"
        super().__init__(f"{' and '.join(self.names)}{colon} {problem}", hint=hint)


class PassError(EdgekitError):
    """A pass broke its contract; the fault is in edgekit or in the plugin that offers the pass."""


class PassCrash(PassError):
    """A pass ended in an unexpected exception.

    Args:
        report: Traceback, versions and the graph without weights, for a crash report file.
        plugin: The distribution that offers the pass, with its version; empty for edgekit's own.
    """

    def __init__(self, message: str, *, report: str, hint: str = "", plugin: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report
        self.plugin = plugin


class DeviceError(EdgekitError):
    """A device could not be reached, or failed.

    Args:
        transient: Whether the same command may succeed when run again.
        kind: The agent's name for the failure; empty if the failure is not the agent's.
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
    """Return why a system operation failed, in words, without error numbers and paths."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def first_line(error: BaseException) -> str:
    """Return the first line of an error message; runtimes may append a stack trace."""
    return str(error).strip().partition("\n")[0]


def did_you_mean(
    word: object, known: Iterable[str], *, old: Mapping[str, str] | None = None
) -> str:
    """Return the end of a message on an unknown word: the most similar known word, if any.

    Args:
        word: The unknown word.
        known: The known words.
        old: Former words, with the known word that replaces each.
    """
    by_lower = {each.lower(): new for each, new in (old or {}).items()}
    by_lower |= {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def make_missing_extra_error(package: str, extra: str) -> UserError:
    """Return the error for an optional dependency that is not installed."""
    return UserError(f"{package} is not installed", hint=f"pip install 'edgekit[{extra}]'")


class PassRefused(EdgekitError):
    """Refusal of a pass that does not apply to this model, with the reason in one line.

    Args:
        least_bytes: Smallest transfer size that the pass can reach, if a smaller one was requested.
        quantized: Whether the reason is that the model is quantized already.
    """

    exit_code = ExitCode.BAD_REQUEST

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        least_bytes: int | None = None,
        quantized: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.least_bytes = least_bytes
        self.quantized = quantized
