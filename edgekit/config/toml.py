"""Reading of TOML files with limits of size and depth."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

from edgekit.errors import UserError, reason

MOST_BYTES = 1 << 20
DEEPEST = 32
UNREADABLE = "cannot be read"


def read_toml(path: Path, *, hint: str = "", unreadable: str = UNREADABLE) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        hint: Hint of the errors.
        unreadable: Message on a file that cannot be read.

    Raises:
        UserError: The file cannot be read, is not TOML, or is too large or nested too deep.
    """
    try:
        if not _is_readable(path):
            raise UserError(f"{path}: a pipe or device, not a file", hint=hint)
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {unreadable}: {reason(error)}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        told = "" if unreadable == UNREADABLE else f"{unreadable}: "
        raise UserError(f"{path}: {told}not TOML: {error}", hint=hint) from error
    return parse_toml(text, where=str(path), hint=hint)


def _is_readable(path: Path) -> bool:
    """Return whether a path is a file that can be read to its end, not a pipe or a device."""
    mode = path.stat().st_mode
    # A shell passes such a path for <(command).
    handed_over = str(path).startswith(("/dev/fd/", "/proc/self/fd/")) and stat.S_ISFIFO(mode)
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or handed_over


def parse_toml(text: str, *, where: str, hint: str = "") -> dict[str, Any]:
    """Parse TOML text.

    Raises:
        UserError: The text is not TOML, or too large or nested too deep.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"{where}: larger than {MOST_BYTES >> 20} MiB", hint=hint)
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise UserError(f"{where}: nested deeper than {DEEPEST} levels", hint=hint) from error
    # Besides TOML errors, numbers with thousands of digits raise ValueError.
    except ValueError as error:
        raise UserError(f"{where}: not TOML: {error}", hint=hint) from error
    _check_values(table, where, hint)
    return table


def _check_values(table: dict[str, Any], where: str, hint: str) -> None:
    waiting: list[tuple[object, int]] = [(table, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise UserError(f"{where}: nested deeper than {DEEPEST} levels", hint=hint)
        if isinstance(value, dict):
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, str) and "\0" in value:
            raise UserError(f"{where}: a string contains a NUL character", hint=hint)
