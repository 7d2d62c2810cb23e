"""Limits on the learning of a build's candidates."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.config.project import BuildTable, Effort

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
    """
    chosen = effort or table.effort
    given = minutes if minutes is not None or effort is not None else table.minutes
    return Learning(
        minutes=_MINUTES[chosen] if given is None else given,
        attempts=_ATTEMPTS_OF_THOROUGH if chosen == "thorough" else _ATTEMPTS,
    )
