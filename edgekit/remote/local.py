"""This machine as a device: commands in child processes."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading

from edgekit.errors import DeviceError
from edgekit.remote.transport import (
    LONGEST_LINE_BYTES,
    SEND_SLICE_S,
    STDERR_KEPT_BYTES,
    Lines,
    Stream,
    exit_status,
)

CHUNK = 1 << 16


class LocalTransport:
    """Runs commands in child processes, each a process group of its own that ends with us."""

    name = "local"
    pythons = (sys.executable,)

    def __init__(self) -> None:
        self._streams: list[LocalStream] = []

    def open(self, command: str) -> Stream:
        """Run one command line of ``sh``."""
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # A group of its own: Ctrl-C reaches us alone, and close() reaches every descendant.
                process_group=0,
            )
        except OSError as error:
            raise DeviceError(f"local: cannot start /bin/sh: {error}") from error
        stream = LocalStream(process, len(command.encode()))
        self._streams.append(stream)
        return stream

    def reopen(self) -> None:
        """End every running command; there is no connection to renew."""
        self.close()

    def close(self) -> None:
        """End every command that still runs."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()


class LocalStream:
    """One child process and its pipes."""

    def __init__(self, process: subprocess.Popen[bytes], command_bytes: int) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the process needs all three pipes")
        self.command_bytes = command_bytes
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._lines = Lines(self._receive)
        self._stderr = bytearray()
        self._drain = threading.Thread(target=self._keep_stderr, daemon=True)
        self._drain.start()

    def send(self, data: memoryview) -> int:
        """Hand over what the pipe takes within a moment."""
        try:
            if not _ready(self._stdin.fileno(), selectors.EVENT_WRITE, SEND_SLICE_S):
                return 0
            return os.write(self._stdin.fileno(), data[:CHUNK])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise DeviceError("local: the command takes no more input", transient=True) from error

    def readable(self) -> bool:
        """Whether output, or its end, waits to be read."""
        return self._lines.waiting() or _ready(self._stdout.fileno(), selectors.EVENT_READ, 0)

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line; empty at the end."""
        return self._lines.readline(timeout_s, most_bytes)

    def stderr_tail(self) -> str:
        """The last of what the command wrote to stderr."""
        self._drain.join(0.2)
        return self._stderr.decode(errors="replace").strip()

    def wait(self, timeout_s: float) -> int:
        """The exit status, negative for a signal."""
        try:
            return exit_status(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def close(self) -> None:
        """Kill the whole process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain.join(1.0)
        self._stdin.close()
        self._stdout.close()

    def _receive(self, timeout_s: float) -> bytes:
        if not _ready(self._stdout.fileno(), selectors.EVENT_READ, timeout_s):
            raise TimeoutError
        return os.read(self._stdout.fileno(), CHUNK)

    def _keep_stderr(self) -> None:
        with self._process.stderr as pipe:  # type: ignore[union-attr]
            while chunk := pipe.read(CHUNK):
                self._stderr += chunk
                del self._stderr[:-STDERR_KEPT_BYTES]


def _ready(handle: int, event: int, timeout_s: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(handle, event)
        return bool(selector.select(timeout_s))
