"""The two ends of the conversation: job lines and raw bytes in, JSON lines out."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, BinaryIO, Dict, Optional, Protocol, Tuple

from edgekit_agent import strictjson
from edgekit_agent.codec import JOBS, decode, encode
from edgekit_agent.failures import AgentError, PeerGone
from edgekit_agent.results import Failure


class Progress(Protocol):
    """Called with a stage, how much of it is done, and how much it is in all (0 = not known)."""

    def __call__(
        self, stage: str, done: int, total: int, part: Optional[Dict[str, Any]] = None
    ) -> None:
        """Say how far a job is; ``part`` of the result is known already."""


_PROGRESS_EVERY_S = 0.5
_DRAIN_BYTES = 1 << 16
_STALL_S = 120.0


def guard_stdout() -> int:
    """Keep the real standard output for answers and send everything else to stderr.

    Runtimes written in C print to file descriptor 1 behind Python's back; one such line between
    two answers would break the conversation.

    Returns:
        A file descriptor that only the caller writes to.
    """
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    return real


def _link_is_dead(number: int, frame: object) -> None:
    raise PeerGone


class Inlet:
    """Reads job lines, and the raw bytes that follow some of them, from one buffered stream."""

    def __init__(self, stream: BinaryIO, stall_s: float = _STALL_S) -> None:
        self._stream = stream
        self._stall_s = stall_s
        self._owed = 0
        signal.signal(signal.SIGALRM, _link_is_dead)

    def line(self) -> Optional[bytes]:
        """The next line that is not blank; ``None`` when the other side has no more."""
        for line in iter(self._stream.readline, b""):
            if line.strip():
                return line
        return None

    def expect(self, count: int) -> None:
        """``count`` raw bytes follow."""
        self._owed = count

    def take(self, limit: int) -> bytes:
        """At least one and at most ``limit`` of the raw bytes, as soon as there are any.

        Raises:
            PeerGone: the stream ended before the last of them, or nothing came for so long that
                the link must be dead. Without that a half-open link would hold the lock of the
                device until TCP gives up, which takes hours.
        """
        signal.setitimer(signal.ITIMER_REAL, self._stall_s)
        try:
            chunk = self._stream.read1(min(limit, self._owed))  # type: ignore[attr-defined]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not chunk:
            raise PeerGone
        self._owed -= len(chunk)
        return bytes(chunk)

    def drain(self) -> None:
        """Throw away the raw bytes nobody took, so that a line comes next."""
        while self._owed:
            self.take(_DRAIN_BYTES)


class Outlet:
    """Writes answers as JSON lines to a file descriptor of its own.

    Every method raises ``PeerGone`` when nobody reads them any more.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._last_progress = 0.0
        self._last_stage = ""

    def progress(
        self, stage: str, done: int, total: int, part: Optional[Dict[str, Any]] = None
    ) -> None:
        """Say how far a job is.

        Dropped when the last word on the same stage was less than half a second ago and no part of
        the result comes along.
        """
        now = time.monotonic()
        is_due = now - self._last_progress >= _PROGRESS_EVERY_S or stage != self._last_stage
        if not is_due and part is None:
            return
        self._last_progress, self._last_stage = now, stage
        said: Dict[str, Any] = {"stage": stage, "done": done, "total": total}
        self._send({"progress": said if part is None else {**said, "part": part}})

    def result(self, value: Dict[str, Any]) -> None:
        """End a job with its result."""
        self._send({"result": value})

    def fail(self, failure: Failure) -> None:
        """End a job with the reason why there is no result."""
        self._send({"error": encode(failure)})

    def line(self, line: bytes) -> None:
        """Pass on a line that is JSON already."""
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone from error

    def _send(self, message: Dict[str, Any]) -> None:
        self.line(json.dumps(message, allow_nan=False).encode() + b"\n")


def read_job(line: bytes) -> Tuple[str, Any]:
    """The kind and the record of a job line.

    Raises:
        AgentError: ``bad_job``; the message says which field is wrong.
    """
    try:
        message = strictjson.loads(line)
        if not isinstance(message, dict) or set(message) != {"job", "settings"}:
            raise ValueError('expected {"job": KIND, "settings": {...}}')
        if message["job"] not in JOBS:
            raise ValueError(f"unknown job {message['job']!r}; known: {', '.join(JOBS)}")
        return message["job"], decode(JOBS[message["job"]], message["settings"])
    except (ValueError, TypeError) as error:
        hint = "host and agent may be of different versions"
        raise AgentError("bad_job", f"not a job: {error}", hint=hint) from error
