"""Lines on standard error that tell a waiting user what goes on."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Optional, Type

_FIRST_S, _LATER_S = 2.0, 5.0


class Ticker:
    """A thread that writes a line while a stage takes over two seconds, and every five after that.

    Args:
        name: begins every line.
    """

    def __init__(self, name: str) -> None:
        self._name, self._text, self._seconds = name, "", 0.0
        self._changed, self._ends = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._ends = True
        self._changed.set()
        self._thread.join()

    def begin(self, text: str) -> None:
        """Begin a stage, such as "unpacking the model"."""
        self._text = text
        self._changed.set()

    def report(self, done: int, total: int) -> None:
        """Tell how much of the stage is done; this adds the percentage to its lines."""
        if total:
            base = self._text.partition(":")[0]
            self._text = f"{base}: {100 * done // total} %"

    def _run(self) -> None:
        wait_s = _FIRST_S
        while not self._ends:
            if self._changed.wait(wait_s):
                self._changed.clear()
                wait_s, self._seconds = _FIRST_S, 0.0
                continue
            self._seconds += wait_s
            wait_s = _LATER_S
            if self._text:
                sys.stderr.write(f"{self._name}: {self._text} ({self._seconds:.0f} s)\n")
                sys.stderr.flush()
