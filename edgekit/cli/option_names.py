"""Error messages that name options instead of arguments of the Python API."""

from __future__ import annotations

from edgekit.argument_checks import OPTION_NAMES
from edgekit.errors import ArgumentError, EdgekitError

# Arguments of the API that are positional in a command, as its help names them.
_POSITIONAL = {
    "build_dir": "BUILD_DIR",
    "bundle": "BUNDLE",
    "host": "HOST",
    "model": "MODEL",
    "name": "NAME",
    "step": "PASS",
    "target": "BUNDLE|MODEL",
}


def format_error(error: EdgekitError) -> str:
    """Format an error; wrong arguments have the names of their options."""
    if not isinstance(error, ArgumentError):
        return str(error)
    names = _POSITIONAL | OPTION_NAMES
    options = (names.get(name, f"--{name.replace('_', '-')}") for name in error.names)
    return str(ArgumentError(tuple(options), error.problem, hint=error.hint))
