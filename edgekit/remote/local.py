"""Transport for this machine: commands run as child processes."""

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
    decode_exit_status,
)

CHUNK = 1 << 16


class LocalTransport:
    """Transport to this machine; each command is a process group that ``close`` kills."""

    name = "local"
    pythons = (sys.executable,)

    def __init__(self) -> None:
        self._streams: list[LocalStream] = []

    def open(self, command: str) -> Stream:
        """Start a command line of ``sh`` and return its stream."""
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Own process group: Ctrl-C reaches edgekit alone, and close() every descendant.
                process_group=0,
            )
        except OSError as error:
            raise DeviceError(f"local: cannot start /bin/sh: {error}") from error
        stream = LocalStream(process, len(command.encode()))
        self._streams.append(stream)
        return stream

    def reconnect(self) -> None:
        """Kill all running commands; there is no connection to renew."""
        self.close()

    def close(self) -> None:
        """Kill all commands that still run."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()


class LocalStream:
    """Stream of one child process and its pipes."""

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
        """Write as many bytes as the pipe accepts within ``SEND_SLICE_S``; return their number."""
        try:
            if not _wait_until_ready(self._stdin.fileno(), selectors.EVENT_WRITE, SEND_SLICE_S):
                return 0
            return os.write(self._stdin.fileno(), data[:CHUNK])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise DeviceError("local: the command closed its input", transient=True) from error

    def has_output(self) -> bool:
        """Return whether output, or its end, can be read now."""
        return self._lines.has_line() or _wait_until_ready(
            self._stdout.fileno(), selectors.EVENT_READ, 0
        )

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line; return no bytes at the end of the output."""
        return self._lines.readline(timeout_s, most_bytes)

    def stderr_tail(self) -> str:
        """Return the end of the command's stderr, at most ``STDERR_KEPT_BYTES``."""
        self._drain.join(0.2)
        return self._stderr.decode(errors="replace").strip()

    def wait(self, timeout_s: float) -> int:
        """Wait for the command and return its exit status, negative for a signal."""
        try:
            return decode_exit_status(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def close(self) -> None:
        """Kill the whole process group and close the pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain.join(1.0)
        self._stdin.close()
        self._stdout.close()

    def _receive(self, timeout_s: float) -> bytes:
        if not _wait_until_ready(self._stdout.fileno(), selectors.EVENT_READ, timeout_s):
            raise TimeoutError
        return os.read(self._stdout.fileno(), CHUNK)

    def _keep_stderr(self) -> None:
        with self._process.stderr as pipe:  # type: ignore[union-attr]
            while chunk := pipe.read(CHUNK):
                self._stderr += chunk
                del self._stderr[:-STDERR_KEPT_BYTES]


def _wait_until_ready(handle: int, event: int, timeout_s: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(handle, event)
        return bool(selector.select(timeout_s))
