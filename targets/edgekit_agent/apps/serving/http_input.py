"""Bytes of a client, read until a deadline: a slow client cannot hold a connection for long."""

from __future__ import annotations

import io
import socket
import time
from typing import Any


class TimedInput(io.RawIOBase):
    """The input of a connection, which ends with ``socket.timeout`` at a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection, self._deadline = connection, 0.0

    def allow(self, seconds: float) -> None:
        """Set the deadline to this many seconds from now."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill a buffer with the bytes that have come, after waiting for the first."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the client is too slow")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)
