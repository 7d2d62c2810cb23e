"""Supervision of worker processes: a crash of a runtime ends the worker alone, not the agent."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from typing import IO, Any, Dict, List, Optional, Tuple

from edgekit_agent.codec import decode, encode_job
from edgekit_agent.failures import AgentError, PeerGone
from edgekit_agent.limits import NO_LIMITS, Limits
from edgekit_agent.measure.memory import available_bytes
from edgekit_agent.wire import Outlet
from edgekit_agent.worker_results import Failure

# The folder or the zip file that this package is imported from.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Isolated mode drops PYTHONPATH and the current folder; the package is imported from ROOT, which
# is removed from sys.path again because other packages may be in the same folder.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from edgekit_agent.__main__ import main; "
    "sys.path.remove(sys.argv[1]); sys.exit(main(sys.argv[2:]))"
)
_STDERR_TAIL = 2000
_READ_BYTES = 1 << 16

_SIGNAL_HINTS: Dict[int, str] = {
    signal.SIGILL: "the runtime was built for a newer CPU; use another version",
    signal.SIGSEGV: "the runtime crashed; try another version of it",
    signal.SIGBUS: "the runtime crashed; a file that it mapped may be truncated, or the disk is "
    "failing",
    signal.SIGABRT: "the runtime aborted",
}


def agent_files() -> Tuple[int, ...]:
    """Return the open files that a child needs: the agent's own, if it runs from one.

    The bootstrap has checked the digest of these very bytes.
    """
    folder, name = os.path.split(ROOT)
    return (int(name),) if folder in ("/proc/self/fd", "/dev/fd") else ()


def agent_command(arguments: List[str]) -> List[str]:
    """Return the command that starts this agent with other arguments, in isolated mode."""
    flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    return [sys.executable, *flags, "-c", _START, ROOT, *arguments]


def run_in_worker(job: object, outlet: Outlet, limits: Limits = NO_LIMITS) -> Dict[str, Any]:
    """Run a job in a child process, pass its progress on, and return its result.

    Raises:
        AgentError: the failure that the worker reported; ``killed`` or ``internal`` if it died
            without a report; ``too_slow`` if it took too long.
        PeerGone: the receiver of the answer hung up; the worker is dead by then.
    """
    worker = subprocess.Popen(
        agent_command(["worker", *_format_memory_argument(limits)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=agent_files(),
        # Nothing here needs BLAS, and its thread pool would count in the worker's memory.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    relay = _Relay(outlet, limits.seconds)
    try:
        relay.run(worker, json.dumps(encode_job(job)).encode() + b"\n")
    finally:
        worker.kill()
        for pipe in _list_pipes(worker):
            pipe.close()
        worker.wait()
    if relay.failure is not None:
        raise _to_agent_error(relay.failure)
    if relay.result is None:
        raise _make_death_error(worker.returncode, relay.stderr.decode(errors="replace"))
    return relay.result


class _Relay:
    """Result, failure and error output of a worker, and the relay of its progress."""

    def __init__(self, outlet: Outlet, seconds: Optional[float] = None) -> None:
        self._outlet = outlet
        self._seconds = seconds
        self._deadline = time.monotonic() + (seconds or 0.0)
        self._partial = b""
        self.result: Optional[Dict[str, Any]] = None
        self.failure: Optional[Failure] = None
        self.stderr = b""

    def run(self, worker: subprocess.Popen[bytes], job: bytes) -> None:
        """Send the job to the worker and read until it closes its output."""
        stdin, stdout, stderr = _list_pipes(worker)
        # A worker that died at once is detected below, by its exit status. Standard input stays
        # open: a worker ends when it is closed, so it never outlives its supervisor.
        with contextlib.suppress(BrokenPipeError):
            os.write(stdin.fileno(), job)
        poller = select.poll()
        poller.register(stdout, select.POLLIN)
        poller.register(stderr, select.POLLIN)
        poller.register(self._outlet.fd, 0)  # 0: only a hang-up is reported
        while True:
            for fd, _ in poller.poll(self._get_remaining_ms()):
                if fd == self._outlet.fd:
                    raise PeerGone
                data = os.read(fd, _READ_BYTES)
                if fd == stderr.fileno():
                    self._keep_stderr(data)
                    if not data:
                        poller.unregister(fd)
                elif data:
                    self._handle_lines(data)
                else:
                    self._read_rest_of_stderr(stderr)
                    worker.wait()
                    return

    def _get_remaining_ms(self) -> Optional[float]:
        if self._seconds is None:
            return None
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise AgentError(
                "too_slow",
                f"stopped, as it did not finish within {self._seconds:g} s",
                hint="the device is busy, or the model is too large for it; the device still "
                "serves the previous release",
            )
        return remaining_s * 1000

    def _keep_stderr(self, data: bytes) -> None:
        self.stderr = (self.stderr + data)[-_STDERR_TAIL:]
        sys.stderr.buffer.write(data)
        sys.stderr.flush()

    def _read_rest_of_stderr(self, stderr: IO[bytes]) -> None:
        os.set_blocking(stderr.fileno(), False)
        # Reading blocks if a grandchild holds it open; by then all output has been read.
        with contextlib.suppress(BlockingIOError):
            for data in iter(lambda: os.read(stderr.fileno(), _READ_BYTES), b""):
                self._keep_stderr(data)

    def _handle_lines(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "progress" in message:
                self._outlet.line(line + b"\n")
            elif "error" in message:
                self.failure = decode(Failure, message["error"])
            else:
                self.result = message["result"]


def _format_memory_argument(limits: Limits) -> List[str]:
    return [] if limits.memory_bytes is None else [str(limits.memory_bytes)]


def _list_pipes(worker: subprocess.Popen[bytes]) -> List[IO[bytes]]:
    return [pipe for pipe in (worker.stdin, worker.stdout, worker.stderr) if pipe is not None]


def _to_agent_error(failure: Failure) -> AgentError:
    return AgentError(failure.kind, failure.message, hint=failure.hint, transient=failure.transient)


def _make_death_error(status: int, stderr: str) -> AgentError:
    last = " / ".join(line.strip() for line in stderr.strip().splitlines()[-3:])
    tail = f"; its last output: {last}" if last else ""
    if status >= 0:
        return AgentError("internal", f"the worker ended with status {status}{tail}")
    name = signal.Signals(-status).name
    return AgentError(
        "killed",
        f"the process that ran the model was killed by {name}{tail}",
        hint=_make_memory_hint() if -status == signal.SIGKILL else _SIGNAL_HINTS.get(-status, ""),
        transient=-status in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT),
    )


def _make_memory_hint() -> str:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    free = available_bytes()
    now = f", {free >> 20} MiB are free now" if free is not None else ""
    return f"probably out of memory: it used {peak} MiB{now}; try a smaller model"
