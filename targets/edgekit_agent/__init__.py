"""Agent: the part of edgekit that runs on the device; the host measures with the same code.

Importing this package needs the standard library of Python 3.9 and nothing else. A runtime and
numpy are imported by the worker process that runs a model, or when a ``Session`` is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit_agent.session import Session

__all__ = ["Session"]


def __getattr__(name: str) -> object:
    if name == "Session":
        from edgekit_agent.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
