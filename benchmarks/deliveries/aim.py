"""Hook for Python on a device that announces one file operation of the agent and stops there.

``deliveries.power`` installs it where Python imports it at every start. Without the file
``/run/aim`` it does nothing. Standard library, Python 3.9.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

AIM, ANNOUNCED = "/run/aim", "/run/announced"
# Index of the argument that is the changed path, by operation.
_PLACES = {
    "replace": 1,
    "rename": 1,
    "symlink": 1,
    "link": 1,
    "unlink": 0,
    "mkdir": 0,
    "rmdir": 0,
    "fsync": 0,
}
_STOPPED_S = 600.0


class Aim:
    """File operation to stop at: the ``nth`` whose name and path match, before or after it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.operation = re.compile(settings["operation"])
        self.place = re.compile(settings["place"])
        self.nth = int(settings["nth"])
        self.before = bool(settings["before"])
        self.by_watcher = bool(settings["by_watcher"])
        self.goes_on = bool(settings["goes_on"])
        self.seen = 0

    def wrap(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        """Return an operation that stops if it matches."""

        def wrapped(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            place = _path(arguments[_PLACES[name]])
            is_here = self._matches(name, place)
            if is_here and self.before:
                self._stop(name, place)
            result = operation(*arguments, **named)
            if is_here and not self.before:
                self._stop(name, place)
            return result

        return wrapped

    def _matches(self, name: str, place: str) -> bool:
        is_watcher = "watch" in sys.argv or sys.argv[:1] == ["watch"]
        if is_watcher != self.by_watcher or "/edgekit/" not in place:
            return False
        if not (self.operation.fullmatch(name) and self.place.fullmatch(place)):
            return False
        self.seen += 1
        return self.seen == self.nth

    def _stop(self, name: str, place: str) -> None:
        handle = os.open(ANNOUNCED, os.O_WRONLY)
        os.write(handle, f"{name} {place}\n".encode())
        os.close(handle)
        if not self.goes_on:
            time.sleep(_STOPPED_S)


def _path(argument: Any) -> str:  # noqa: ANN401
    if isinstance(argument, int):
        return os.readlink(f"/proc/self/fd/{argument}") + "/"
    return os.path.abspath(os.fspath(argument))


def arm() -> None:
    """Wrap the file operations if ``/run/aim`` exists."""
    names: list[str] = list(_PLACES)
    try:
        with open(AIM, encoding="utf-8") as file:
            aim = Aim(json.load(file))
    except OSError:
        return
    for name in names:
        setattr(os, name, aim.wrap(name, getattr(os, name)))


arm()
