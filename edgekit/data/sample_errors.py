"""Errors of the code that reads samples on any machine, as errors of this command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.errors import UserError, make_missing_extra_error
from edgekit_agent.failures import AgentError

# Optional dependencies by their package.
_EXTRAS = {"pillow": "images", "tokenizers": "tokenizers"}


@contextmanager
def raise_user_errors() -> Iterator[None]:
    """Raise failures of the agent's code inside the block as errors of the user.

    Raises:
        UserError: A sample cannot be read, or a package is missing.
    """
    try:
        yield
    except AgentError as error:
        failure = error.failure
        if failure.kind == "missing_package":
            package = failure.message.split()[0]
            raise make_missing_extra_error(package, _EXTRAS[package]) from error
        raise UserError(failure.message, hint=failure.hint) from error
