"""The running server of an app: its lock, its state file, and the command to stop it.

The server holds a lock on its state file for as long as it runs. So a process number in the file
counts only while the lock is held, and never names another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass
from typing import BinaryIO, Iterator, Optional

from edgekit_agent import strictjson
from edgekit_agent.apps.installed import App
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError

STATE = "serve.lock"
_MOST_BYTES = 1 << 12
_WRITE_S, _END_S, _KILL_S, _POLL_S = 2.0, 10.0, 5.0, 0.05


@dataclass(frozen=True)
class Running:
    """A running server: its process, its port, and the release that it serves."""

    pid: int
    port: int
    release: str

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"


class StateFile:
    """The locked state file of this process."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, port: int, release: str) -> None:
        """Write where this process serves."""
        data = json.dumps(encode(Running(os.getpid(), port, release))).encode()
        self._file.truncate(0)
        os.pwrite(self._file.fileno(), data, 0)


@contextlib.contextmanager
def hold_state(app: App) -> Iterator[StateFile]:
    """Hold the lock of the app's server.

    Raises:
        AgentError: ``already_runs``.
    """
    path = get_state_path(app)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with open(path, "ab") as file:
        _lock(app, file)
        file.truncate(0)
        try:
            yield StateFile(file)
        finally:
            file.truncate(0)


def _lock(app: App, file: BinaryIO) -> None:
    """Lock the state file.

    A command that asks whether the server runs holds the lock for a moment, too.
    """
    deadline = time.monotonic() + _WRITE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            running = find_running(app)
            if running is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            where = f" at {running.url}" if running else ""
            raise AgentError(
                "already_runs",
                f"{app.name} runs already{where}",
                hint=f"stop it first: {app.name} stop",
            ) from None


def get_state_path(app: App) -> str:
    """Return the path of the state file: in the app's home, or the user's where that is another's.

    An app that root has installed for all users is served by each user alone.
    """
    if not os.path.isdir(app.home.path) or os.access(app.home.path, os.W_OK):
        return os.path.join(app.home.path, STATE)
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isdir(folder):
        folder = os.path.expanduser("~/.cache")
    return os.path.join(folder, f"edgekit-{app.name}.lock")


def find_running(app: App) -> Optional[Running]:
    """Return the running server of an app; ``None`` if it does not run."""
    try:
        file = open(get_state_path(app), "rb")  # noqa: SIM115 - closed by the next statement
    except OSError:
        return None
    with file:
        deadline = time.monotonic() + _WRITE_S
        while _is_locked(file):
            try:
                return decode(Running, strictjson.loads(os.pread(file.fileno(), _MOST_BYTES, 0)))
            except ValueError:  # a server that starts has not written it yet
                if time.monotonic() > deadline:
                    return None
            time.sleep(_POLL_S)
    return None


def stop_server(app: App) -> bool:
    """End the running server of an app; return whether there was one.

    Raises:
        AgentError: ``permission``: it runs as another user; ``does_not_end``.
    """
    running = find_running(app)
    if running is None:
        return False
    with _open_process(running.pid) as handle:
        # Only now: the number could have gone to another process before it was opened.
        if find_running(app) != running:
            return True
        for number, seconds in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _KILL_S)):
            _send(running.pid, handle, number)
            if _wait_for_end(app, running, seconds):
                return True
    raise AgentError("does_not_end", f"the process {running.pid} of {app.name} does not end")


@contextlib.contextmanager
def _open_process(pid: int) -> Iterator[Optional[int]]:
    """Open a process, so that signals reach it and no other; ``None`` where that is unknown."""
    handle = None
    with contextlib.suppress(OSError, AttributeError):  # it has ended, or the kernel is old
        handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _send(pid: int, handle: Optional[int], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if handle is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(handle, number)


def _wait_for_end(app: App, running: Running, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while find_running(app) == running:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
