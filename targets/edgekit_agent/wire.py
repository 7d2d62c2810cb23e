"""Input and output of the agent: job lines and raw bytes in, JSON lines out."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, BinaryIO, Dict, Optional, Protocol, Tuple

from edgekit_agent import strictjson
from edgekit_agent.codec import JOBS, decode, encode, get_job_type
from edgekit_agent.failures import AgentError, PeerGone
from edgekit_agent.protocol import PROTOCOL, Version, read_version
from edgekit_agent.worker_results import Failure


class Progress(Protocol):
    """A callback for the progress of a stage: amount done, and its total (0 = not known)."""

    def __call__(
        self, stage: str, done: int, total: int, part: Optional[Dict[str, Any]] = None
    ) -> None:
        """Report the progress of a job; ``part`` is a part of the result that is known already."""


_PROGRESS_EVERY_S = 0.5
_DRAIN_BYTES = 1 << 16
_STALL_S = 120.0


def guard_stdout() -> int:
    """Reserve the real standard output for answers and send everything else to stderr.

    Runtimes written in C print to file descriptor 1 without Python's notice; one such line between
    two answers would break the protocol.

    Returns:
        A file descriptor that only the caller writes to.
    """
    sys.stdout.flush()
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    return answer_fd


def _raise_peer_gone(number: int, frame: object) -> None:
    raise PeerGone


class Inlet:
    """A reader of job lines, and of the raw bytes after some of them, from one buffered stream."""

    def __init__(self, stream: BinaryIO, stall_s: float = _STALL_S) -> None:
        self._stream = stream
        self._stall_s = stall_s
        self._owed = 0
        signal.signal(signal.SIGALRM, _raise_peer_gone)

    def line(self) -> Optional[bytes]:
        """Read the next line that is not blank; ``None`` at the end of the input."""
        for line in iter(self._stream.readline, b""):
            if line.strip():
                return line
        return None

    def expect(self, count: int) -> None:
        """Declare that ``count`` raw bytes follow."""
        self._owed = count

    def take(self, limit: int) -> bytes:
        """Read at least one and at most ``limit`` of the raw bytes, as soon as there are any.

        Raises:
            PeerGone: the stream ended before the last of them, or nothing came for so long that
                the link must be dead. Without this limit a half-open link would hold the device's
                lock until TCP gives up, which takes hours.
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
        """Discard the raw bytes that were not read, so that a line comes next."""
        while self._owed:
            self.take(_DRAIN_BYTES)


class Outlet:
    """A writer of answers as JSON lines to a file descriptor of its own.

    Every method raises ``PeerGone`` when nobody reads them any more.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._last_progress = 0.0
        self._last_stage = ""

    def progress(
        self, stage: str, done: int, total: int, part: Optional[Dict[str, Any]] = None
    ) -> None:
        """Report the progress of a job.

        A report on the same stage within half a second of the last one is dropped, unless it has a
        part of the result.
        """
        now = time.monotonic()
        is_due = now - self._last_progress >= _PROGRESS_EVERY_S or stage != self._last_stage
        if not is_due and part is None:
            return
        self._last_progress, self._last_stage = now, stage
        message: Dict[str, Any] = {"stage": stage, "done": done, "total": total}
        self._send({"progress": message if part is None else {**message, "part": part}})

    def result(self, value: Dict[str, Any]) -> None:
        """Send the result of a job, which ends it."""
        self._send({"result": value})

    def fail(self, failure: Failure) -> None:
        """Send the failure of a job, which ends it."""
        self._send({"error": encode(failure)})

    def line(self, line: bytes) -> None:
        """Write a line that is JSON already."""
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone from error

    def _send(self, message: Dict[str, Any]) -> None:
        stated = {**message, "protocol": str(PROTOCOL)}
        self.line(json.dumps(stated, allow_nan=False).encode() + b"\n")


def read_job(line: bytes) -> Tuple[str, Any, Version]:
    """Parse a job line; return the kind of the job, its record, and the version of the host.

    Raises:
        AgentError: ``protocol``: the host is of a version that does not work with this one;
            ``bad_job``: the message says which field is wrong.
    """
    try:
        message = strictjson.loads(line)
        if not isinstance(message, dict) or set(message) - {"protocol"} != {"job", "settings"}:
            raise ValueError('expected {"job": KIND, "settings": {...}}')
        peer = read_version(message)
        if not PROTOCOL.works_with(peer):
            raise _make_version_error(peer)
        if message["job"] not in JOBS:
            raise ValueError(f"unknown job {message['job']!r}; known: {', '.join(JOBS)}")
        job = decode(get_job_type(message["job"]), message["settings"], peer=peer)
        return message["job"], job, peer
    except (ValueError, TypeError) as error:
        hint = "host and agent may be of different versions"
        raise AgentError("bad_job", f"not a job: {error}", hint=hint) from error


def _make_version_error(peer: Version) -> AgentError:
    where = "on the device" if peer > PROTOCOL else "on the machine that connects to it"
    return AgentError(
        "protocol",
        f"the host speaks protocol {peer} and the agent {PROTOCOL}: upgrade edgekit {where}",
    )
