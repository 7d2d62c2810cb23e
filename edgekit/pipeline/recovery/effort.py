"""Limits on the learning of a build's candidates."""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgekit.config.project import BuildTable, Effort
from edgekit.errors import UserError

_VARIABLE = "EDGEKIT_EFFORT"

_MINUTES: dict[Effort, float] = {"quick": 0.0, "standard": 10.0, "thorough": 60.0}
_ATTEMPTS = 3
_ATTEMPTS_OF_THOROUGH = 6


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Limits on the learning of a build.

    Attributes:
        minutes: Expected time of all learning together, on two cores; 0 = none.
        attempts: Largest number of models that learn.
    """

    minutes: float = 0.0
    attempts: int = _ATTEMPTS


def choose_learning(effort: Effort | None, minutes: float | None, table: BuildTable) -> Learning:
    """Choose the limits from a request and the settings of a project.

    Args:
        effort: Effort of the request; ``None`` = that of the project.
        minutes: Minutes of the request; ``None`` = those of the project, unless the request has an
            effort of its own.
        table: Settings of the project.

    Raises:
        UserError: The environment names an effort that does not exist.
    """
    chosen = effort or table.effort or _read_usual_effort()
    given = minutes if minutes is not None or effort is not None else table.minutes
    return Learning(
        minutes=_MINUTES[chosen] if given is None else given,
        attempts=_ATTEMPTS_OF_THOROUGH if chosen == "thorough" else _ATTEMPTS,
    )


def _read_usual_effort() -> Effort:
    """Return ``EDGEKIT_EFFORT``, else ``standard``."""
    given = os.environ.get(_VARIABLE) or "standard"
    for effort in _MINUTES:
        if effort == given:
            return effort
    raise UserError(f"{_VARIABLE} is {given!r}", hint=f"it may be {', '.join(_MINUTES)}")
