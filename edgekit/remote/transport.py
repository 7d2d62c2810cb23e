"""What a way to a device offers: run one command there, write to it, read its lines."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Protocol

STDERR_KEPT_BYTES = 4096
LONGEST_LINE_BYTES = 1 << 20
# The longest that one send() may keep its caller from looking at what the other side answers.
SEND_SLICE_S = 0.2


class LineTooLong(Exception):
    """The other side sends a line that is too long."""


class Stream(Protocol):
    """One running command. A failing link is a ``DeviceError``; silence is a ``TimeoutError``."""

    @property
    def command_bytes(self) -> int:
        """How much went to the device to start it."""

    def send(self, data: memoryview) -> int:
        """Hand over what the other side takes within a moment; how many bytes, 0 if none."""

    def readable(self) -> bool:
        """Whether ``readline`` has something to look at now."""

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line with its line end; empty at the end of the output.

        Raises:
            TimeoutError: it was not there, whole, within ``timeout_s``.
            LineTooLong: it has more than ``most_bytes``.
        """

    def stderr_tail(self) -> str:
        """The last of what the command wrote to stderr."""

    def wait(self, timeout_s: float) -> int:
        """The exit status, negative for a signal.

        Raises:
            TimeoutError: still running.
        """

    def close(self) -> None:
        """End the command, whatever it is doing."""


class Transport(Protocol):
    """A way to one device."""

    @property
    def name(self) -> str:
        """The host as the user named it."""

    @property
    def pythons(self) -> tuple[str, ...]:
        """Commands to try as the device's Python, best first."""

    def open(self, command: str) -> Stream:
        """Run one command line of ``sh``.

        Raises:
            DeviceError: the device could not start it.
        """

    def reopen(self) -> None:
        """Disconnect and connect again.

        Raises:
            DeviceError: it cannot be reached.
        """

    def close(self) -> None:
        """Leave the device; ends every stream."""


class Lines:
    """Lines out of chunks of bytes.

    Args:
        receive: gives the next chunk, empty at the end; raises ``TimeoutError`` after the seconds
            it is called with.
    """

    def __init__(self, receive: Callable[[float], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def waiting(self) -> bool:
        """Whether a whole line is here already."""
        return b"\n" in self._buffer

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line; at the end of the output the rest, then nothing.

        Raises:
            TimeoutError: it was not there, whole, within ``timeout_s``.
            LineTooLong: it has more than ``most_bytes``.
        """
        until, start = time.monotonic() + timeout_s, 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if start > most_bytes:
                break
            chunk = self._receive(max(0.0, until - time.monotonic()))
            if not chunk:
                end = start - 1
                break
            self._buffer += chunk
        if max(start, end) > most_bytes:
            raise LineTooLong(f"a line of more than {most_bytes} bytes")
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line


def exit_status(of_shell: int) -> int:
    """What a shell ended with, as the status of its command, negative for a signal."""
    return 128 - of_shell if of_shell > 128 else of_shell


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def write_all(stream: Stream, data: bytes, *, stall_s: float) -> None:
    """Send everything.

    Raises:
        TimeoutError: the other side took no byte for ``stall_s``.
    """
    view, moved = memoryview(data), time.monotonic()
    while view:
        taken = stream.send(view)
        view = view[taken:]
        if taken:
            moved = time.monotonic()
        elif time.monotonic() - moved > stall_s:
            raise TimeoutError
