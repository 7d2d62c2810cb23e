"""Say on stderr how far a long command is: one line that moves, or a line a stage in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Called with a stage, how much of it is done, and of how much (0 = not known).
Tick = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Says nothing."""
    del stage, done, total


_EVERY_S = 0.1
_WIDTH = 78


@dataclass
class Ticker:
    """Call it with a stage, how much of it is done, and of how much (0 = not known)."""

    _stage: str = field(default="", init=False)
    _last: float = field(default=0.0, init=False)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report progress."""
        if not sys.stderr.isatty():
            if stage != self._stage:
                print(stage, file=sys.stderr, flush=True)
            self._stage = stage
            return
        now = time.monotonic()
        if stage == self._stage and now - self._last < _EVERY_S and done != total:
            return
        self._stage, self._last = stage, now
        figures = f" {done}/{total}" if total else ""
        line = f"{stage}{figures}"[:_WIDTH]
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def said(self, line: dict[str, Any]) -> None:
        """Report progress that an agent told of."""
        self(str(line["stage"]), int(line["done"]), int(line["total"]))

    def clear(self) -> None:
        """Leave no half line behind."""
        if sys.stderr.isatty() and self._stage:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
