"""Links that break at a chosen moment, and processes that are killed at one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.builders.servers import Proxy, agents_below

_POLL_S = 0.001
# Stages of an install, as shown by its files on the device.
STAGES = ("agent", "receiving", "received", "staging", "laid", "watched", "switched")


@dataclass(frozen=True, kw_only=True)
class Home:
    """Home on this machine, and the release that is about to be installed there."""

    path: Path
    new: str
    releases_before: frozenset[str]

    def reached(self, stage: str) -> bool:
        """Return whether an install has reached a stage."""
        match stage:
            case "agent":
                return bool(agents_below(self.path))
            case "receiving":
                return bool(self._list_names("parts"))
            case "received":
                return not self._list_names("parts") and bool(self._fresh_objects())
            case "staging":
                return any(n.startswith(".staging") for n in self._list_names("releases"))
            case "laid":
                return self.new in self._list_names("releases")
            case "watched":
                return (self.path / "watch.json").exists()
        return self._current() == self.new

    def _current(self) -> str:
        try:
            return (self.path / "current").readlink().name
        except OSError:
            return ""

    def _list_names(self, kind: str) -> list[str]:
        try:
            return os.listdir(self.path / kind)
        except OSError:
            return []

    def _fresh_objects(self) -> bool:
        newest = 0.0
        for name in self._list_names("objects"):
            with contextlib.suppress(OSError):
                newest = max(newest, (self.path / "objects" / name).stat().st_ctime)
        return newest > time.time() - 1.0


@dataclass
class BreakingLink(Proxy):
    """Link that is cut or falls silent, after a number of bytes or on request.

    Attributes:
        down_after: Number of bytes from the device after which it breaks.
        falls_silent: Whether it falls silent instead of being reset.
        comes_back: Whether later connections are accepted.
        breaks: Number of connections that break, one after the other.
    """

    down_after: int | None = None
    falls_silent: bool = False
    comes_back: bool = True
    breaks: int = 1
    down: int = 0
    broken: int = 0
    holds: threading.Event = field(default_factory=threading.Event)
    _silent: threading.Event = field(default_factory=threading.Event)

    def break_now(self) -> None:
        """Break every open connection."""
        self.broken += 1
        self.carried = self.down = 0
        if self.falls_silent:
            self._silent.set()
            return
        ends, self._sockets[1:] = self._sockets[1:], []
        self._reset(*ends)

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                if self.broken and not self.comes_back:
                    self._reset(near)
                    continue
                self._silent.clear()
                self._connect(near)

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                while self._silent.is_set() or (self.holds.is_set() and not up):
                    time.sleep(0.01)
                    if source.fileno() < 0:
                        return
                if self.broken < self.breaks and self._is_over(len(data), up=up):
                    self.break_now()
                    continue
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _is_over(self, count: int, *, up: bool) -> bool:
        if up:
            self.carried += count
            return self.cut_after is not None and self.carried > self.cut_after
        self.down += count
        return self.down_after is not None and self.down > self.down_after


@contextlib.contextmanager
def act_at_stage(
    reached: Callable[[], bool], act: Callable[[], None], *, later_s: float = 0.0
) -> Iterator[threading.Event]:
    """Act once a condition holds while the block runs; the event tells whether it did."""
    ended, acted = threading.Event(), threading.Event()

    def wait() -> None:
        while not ended.is_set():
            if reached():
                if not ended.wait(later_s):
                    acted.set()
                    act()
                return
            time.sleep(_POLL_S)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield acted
    finally:
        ended.set()
        thread.join(5.0)


def find_watchers(home: Path) -> list[int]:
    """Find the processes that wait for the confirmation of a release."""
    return [pid for pid in agents_below(home) if "watch" in _words(pid)]


def find_agents_at_work(home: Path) -> list[int]:
    """Find the agents that serve a connection."""
    return [pid for pid in agents_below(home) if "watch" not in _words(pid)]


def find_workers(home: Path) -> list[int]:
    """Find the processes in which an agent runs a model."""
    parents = set(find_agents_at_work(home))
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) in parents:
                found.append(int(entry.name))
    return found


def _words(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def kill_all(pids: list[int]) -> None:
    """Kill processes at once."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
