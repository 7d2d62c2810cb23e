"""Protocols of a transport to a device: run a command, write its input, read its lines."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Protocol

STDERR_KEPT_BYTES = 4096
LONGEST_LINE_BYTES = 1 << 20
# The longest time that one send() may block, so that its caller can read answers.
SEND_SLICE_S = 0.2


class LineTooLong(Exception):
    """A line from the other side that is longer than allowed."""


class Stream(Protocol):
    """A running command; a broken link raises ``DeviceError``, silence ``TimeoutError``."""

    @property
    def command_bytes(self) -> int:
        """Return the number of bytes sent to the device to start the command."""

    def send(self, data: memoryview) -> int:
        """Send as many bytes as are accepted within ``SEND_SLICE_S``; return their number."""

    def has_output(self) -> bool:
        """Return whether output, or its end, can be read now."""

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line with its line end; return no bytes at the end of the output.

        Raises:
            TimeoutError: the line was not complete within ``timeout_s``.
            LineTooLong: the line has more than ``most_bytes``.
        """

    def stderr_tail(self) -> str:
        """Return the end of the command's stderr, at most ``STDERR_KEPT_BYTES``."""

    def wait(self, timeout_s: float) -> int:
        """Wait for the command and return its exit status, negative for a signal.

        Raises:
            TimeoutError: the command still runs after ``timeout_s``.
        """

    def close(self) -> None:
        """End the command."""


class Transport(Protocol):
    """A connection to one device that can run commands."""

    @property
    def name(self) -> str:
        """Return the host as the user named it."""

    @property
    def pythons(self) -> tuple[str, ...]:
        """Return the commands to try as the device's Python, best first."""

    def open(self, command: str) -> Stream:
        """Start a command line of ``sh`` and return its stream.

        Raises:
            DeviceError: the device could not start the command.
        """

    def reconnect(self) -> None:
        """Disconnect and connect again.

        Raises:
            DeviceError: the device cannot be reached.
        """

    def close(self) -> None:
        """Disconnect from the device and end all streams."""


class Lines:
    """Buffer that splits received chunks into lines.

    Args:
        receive: returns the next chunk, empty at the end; called with a time in seconds, after
            which it raises ``TimeoutError``.
    """

    def __init__(self, receive: Callable[[float], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def has_line(self) -> bool:
        """Return whether the buffer holds a complete line."""
        return b"\n" in self._buffer

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line; at the end of the output return the rest, then no bytes.

        Raises:
            TimeoutError: the line was not complete within ``timeout_s``.
            LineTooLong: the line has more than ``most_bytes``.
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


def decode_exit_status(of_shell: int) -> int:
    """Convert the exit status of a shell to that of its command, negative for a signal."""
    return 128 - of_shell if of_shell > 128 else of_shell


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def write_all(stream: Stream, data: bytes, *, stall_s: float) -> None:
    """Send all bytes to a stream.

    Raises:
        TimeoutError: the other side accepted no byte for ``stall_s``.
    """
    view, moved = memoryview(data), time.monotonic()
    while view:
        taken = stream.send(view)
        view = view[taken:]
        if taken:
            moved = time.monotonic()
        elif time.monotonic() - moved > stall_s:
            raise TimeoutError
