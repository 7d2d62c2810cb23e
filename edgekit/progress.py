"""Progress of a command on stderr: stage, amount done, and remaining time."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.printable import escape_text

if TYPE_CHECKING:
    from edgekit_agent.worker_results import StageProgress

# Called with a stage, the amount done, and the total (0 = unknown).
Tick = Callable[[str, int, int], None]
# Called with the amount done and the total of one stage.
Count = Callable[[int, int], None]


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Discard progress."""
    del stage, done, total


def make_agent_callback(tick: Tick) -> Callable[[StageProgress], None]:
    """Return a callback that passes an agent's progress to ``tick``."""
    return lambda said: tick(said.stage, said.done, said.total)


# Intervals of rewriting the line on a terminal; then the delay until times are shown.
_EVERY_S, _REFRESH_S = 0.1, 1.0
_SHOWN_AFTER_S = 2.0
# Interval of lines about the same stage in a log.
_LOG_EVERY_S = 30.0
_WIDTH = 78
# The pace is measured over this last share of a stage, and at least over this time.
_SHARE, _LEAST_S = 0.5, 5.0
# Totals from this number on (such as bytes) are shown in percent.
_COUNTED = 100_000


def merge_rounds(tick: Count, rounds: int) -> Count:
    """Return a callback that merges the progress of several rounds, each from zero, into one."""
    number, last = 0, 0
    tick(0, _COUNTED)

    def count(done: int, total: int) -> None:
        nonlocal number, last
        if done <= last:
            number += 1
        last = done
        tick(min(round(_COUNTED * (number + done / total) / rounds), _COUNTED), _COUNTED)

    return count


class Pace:
    """Speed of a stage, estimated from its recent progress, as the beginning is often slower."""

    def __init__(self, now: float) -> None:
        self.started = now
        self._points: deque[tuple[float, int]] = deque()

    def add(self, done: int, now: float) -> None:
        """Record the amount done."""
        if self._points and done == self._points[-1][1]:
            return
        self._points.append((now, done))
        since = now - max(_LEAST_S, _SHARE * (now - self.started))
        while len(self._points) > 2 and self._points[1][0] <= since:
            self._points.popleft()

    def remaining_s(self, total: int, now: float) -> float | None:
        """Estimate the seconds until all is done; ``None`` if that is not possible."""
        if len(self._points) < 2 or not total:
            return None
        (first, began), (last, done) = self._points[0], self._points[-1]
        if done <= began or last <= first:
            return None
        left = (total - done) * (last - first) / (done - began)
        return max(left - (now - last), 0.0)


def format_duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours and minutes."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class Ticker:
    """Progress display, called with a stage, the amount done, and the total (0 = unknown).

    On a terminal, one line is rewritten. A log gets one line per stage (the first together with the
    second), one after two seconds, and one every half minute of the stage. Once ``start`` was
    called, a thread updates them between calls.
    """

    _stage: str = field(default="", init=False)
    _done: int = field(default=0, init=False)
    _total: int = field(default=0, init=False)
    _pace: Pace = field(default_factory=lambda: Pace(time.monotonic()), init=False)
    _written: float = field(default=0.0, init=False)
    _log_after_s: float = field(default=_SHOWN_AFTER_S, init=False)
    _held: str = field(default="", init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report progress."""
        stage, now = escape_text(stage), time.monotonic()
        with self._lock:
            is_new = stage != self._stage or done < self._done
            if is_new:
                self._pace = Pace(now)
            changed = stage != self._stage
            self._stage, self._done, self._total = stage, done, total
            self._pace.add(done, now)
            if not sys.stderr.isatty():
                if changed:
                    self._log_stage(stage, now, is_first=self._written == 0.0)
                else:
                    self._log_if_due(now)
            elif is_new or done == total or now - self._written >= _EVERY_S:
                self._show(now)

    def start(self) -> None:
        """Start a thread that shows the elapsed time while no progress is reported."""
        threading.Thread(target=self._refresh, daemon=True).start()

    def clear(self) -> None:
        """Stop and erase an unfinished line."""
        self._ended.set()
        with self._lock:
            if sys.stderr.isatty() and self._stage:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._stage = ""

    def _refresh(self) -> None:
        while not self._ended.wait(_REFRESH_S):
            now = time.monotonic()
            with self._lock:
                if not self._stage or self._ended.is_set():
                    continue
                if sys.stderr.isatty():
                    self._show(now)
                else:
                    self._log_if_due(now)

    def _format_line(self, now: float) -> str:
        """Format stage and counts with the remaining time, or the elapsed time if unknown."""
        words = [self._stage]
        if self._total >= _COUNTED:
            words.append(f"{100 * self._done // self._total} %")
        elif self._total:
            words.append(f"{self._done}/{self._total}")
        lasted = now - self._pace.started
        if lasted < _SHOWN_AFTER_S:
            return " ".join(words)
        left = self._pace.remaining_s(self._total, now)
        remaining = (
            f"({format_duration(lasted)} so far)"
            if left is None
            else f"(about {format_duration(left)} left)"
        )
        return " ".join([*words, remaining])

    def _log_stage(self, stage: str, now: float, *, is_first: bool) -> None:
        """Log a new stage; hold back the first until more follows, as a command may end at once."""
        self._log_after_s = _SHOWN_AFTER_S
        if is_first:
            self._written, self._held = now, stage
        else:
            self._log(stage, now)

    def _log_if_due(self, now: float) -> None:
        if now - self._written >= self._log_after_s:
            self._log(self._format_line(now), now)
            self._log_after_s = _LOG_EVERY_S

    def _log(self, line: str, now: float) -> None:
        self._written = now
        if self._held:
            print(self._held, file=sys.stderr)
            self._held = ""
        print(line, file=sys.stderr, flush=True)

    def _show(self, now: float) -> None:
        self._written = now
        line = self._format_line(now)
        if len(line) > _WIDTH:  # the end is the most informative part
            line = f"...{line[len(line) - _WIDTH + 3 :]}"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
