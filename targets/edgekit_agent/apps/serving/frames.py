"""Messages between the server of an app and the process that runs its models."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any, Dict, Optional, Sequence, Tuple

_SIZES = struct.Struct(">II")
# Limits of what one side believes of the other.
MOST_HEADER, _MOST_BODY = 64 << 20, 256 << 20
_READ_BYTES = 1 << 20


def write_frame(
    fd: int, header: Dict[str, Any], body: bytes = b"", deadline: Optional[float] = None
) -> None:
    """Write a JSON object and bytes that belong to it.

    Args:
        fd: the pipe.
        header: the object.
        body: the bytes.
        deadline: time of ``time.monotonic`` at which to give up, if the other side does not read.

    Raises:
        BrokenPipeError: the other side has ended.
        TimeoutError: the deadline is over.
    """
    text = json.dumps(header, allow_nan=False).encode()
    for part in (_SIZES.pack(len(text), len(body)) + text, body):
        view = memoryview(part)
        while view:
            if deadline is None:
                view = view[os.write(fd, view) :]
            else:
                _wait(deadline, writes=[fd])
                # As many bytes as a pipe that is ready takes at once.
                view = view[os.write(fd, view[: select.PIPE_BUF]) :]


def read_frame(fd: int, deadline: Optional[float] = None) -> Tuple[Dict[str, Any], bytes]:
    """Read the next object and its bytes.

    Args:
        fd: the pipe.
        deadline: time of ``time.monotonic`` at which to give up.

    Raises:
        EOFError: the other side has ended.
        TimeoutError: the deadline is over.
        ValueError: not a message.
    """
    header_size, body_size = _SIZES.unpack(_read(fd, _SIZES.size, deadline))
    if header_size > MOST_HEADER or body_size > _MOST_BODY:
        raise ValueError("a message is too large")
    header = json.loads(_read(fd, header_size, deadline))
    if not isinstance(header, dict):
        raise ValueError("a message is not an object")
    return header, _read(fd, body_size, deadline)


def _read(fd: int, count: int, deadline: Optional[float]) -> bytes:
    parts = []
    while count:
        if deadline is not None:
            _wait(deadline, reads=[fd])
        part = os.read(fd, min(count, _READ_BYTES))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _wait(deadline: float, *, reads: Sequence[int] = (), writes: Sequence[int] = ()) -> None:
    """Wait until a pipe is ready.

    Raises:
        TimeoutError: the deadline is over.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0 or not any(select.select(reads, writes, [], left_s)):
        raise TimeoutError
