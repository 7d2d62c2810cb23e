"""Error messages that name options instead of arguments of the Python API."""

from __future__ import annotations

from edgekit.errors import ArgumentError, EdgekitError

# Options whose names differ from those of the arguments.
_OPTIONS = {"steps": "--step", "settings": "--set"}


def format_error(error: EdgekitError) -> str:
    """Format an error; wrong arguments have the names of their options."""
    if not isinstance(error, ArgumentError):
        return str(error)
    options = (_OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in error.names)
    return str(ArgumentError(tuple(options), error.problem, hint=error.hint))
