"""Errors of an app's own code on standard error, which is its log: a bounded number of lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

_MOST_LINES, _PERIOD_S, _MOST_CHARS = 100, 3600.0, 1000


class ErrorLog:
    """A log of at most 100 lines an hour, since a client may repeat its request without end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end, self._count, self._last = 0.0, 0, ""

    def write(self, line: str) -> None:
        """Write a line, unless it is that of the error before or there are too many."""
        with self._lock:
            if time.monotonic() >= self._end:
                self._end, self._count, self._last = time.monotonic() + _PERIOD_S, 0, ""
            if line == self._last or self._count > _MOST_LINES:
                return
            self._last, self._count = line, self._count + 1
            too_many = "too many errors; further ones are not written for an hour"
            text = too_many if self._count > _MOST_LINES else line[:_MOST_CHARS]
            with contextlib.suppress(OSError):  # the disk is full
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
