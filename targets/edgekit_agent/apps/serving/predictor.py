"""The server's side of the process that runs the models: queue, time limit, and restart."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from edgekit_agent.apps.serving.frames import read_frame, write_frame
from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.worker_results import Failure

# Requests that wait while another one is answered; more are refused.
MOST_WAITING = 8
_ANSWER_S, _START_S = 120.0, 300.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.5, 30.0
# A process that ran this long is started again at once.
_STEADY_S = 10.0
_NOTICE_S = 0.01


class Predictor:
    """A process that answers one sample at a time, and is started again when it ends.

    Args:
        command: starts the process.
        answer_s: time limit of one answer, and of the wait for those before it.
    """

    def __init__(self, command: List[str], *, answer_s: float = _ANSWER_S) -> None:
        self._command, self._answer_s = command, answer_s
        self._places = threading.BoundedSemaphore(MOST_WAITING + 1)
        self._one_at_a_time, self._pipes = threading.Lock(), threading.Lock()
        self._ready, self._ends = threading.Event(), threading.Event()
        self._worker: Optional[subprocess.Popen[bytes]] = None
        self._problem = ""
        self._thread = threading.Thread(target=self._keep_running, daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """True while the models are loaded."""
        return self._ready.is_set()

    @property
    def problem(self) -> str:
        """The reason why the models are not loaded; empty if there is none yet."""
        return "" if self.is_ready else self._problem

    def wait_until_ready(self, seconds: float) -> bool:
        """Wait until the models are loaded; return whether they are."""
        return self._ready.wait(seconds)

    def predict(self, data: bytes, media_type: str) -> Dict[str, Any]:
        """Return the answer to one sample.

        Raises:
            AgentError: ``busy``: too many requests wait; ``not_ready``: the models are not loaded;
                ``too_slow``; ``killed``: the process ended; failures of the app and its models.
        """
        if not self._places.acquire(blocking=False):
            raise AgentError("busy", "Too many requests at a time; try again.", transient=True)
        try:
            if not self._one_at_a_time.acquire(timeout=self._answer_s):
                raise AgentError("busy", "Earlier requests take too long.", transient=True)
            try:
                # The wait does not count: else the process would be ended while it works well.
                return self._ask(data, media_type, time.monotonic() + self._answer_s)
            finally:
                self._one_at_a_time.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """End the process."""
        self._ends.set()
        worker = self._worker
        if worker is not None:
            worker.kill()
        self._thread.join(5)

    def _ask(self, data: bytes, media_type: str, deadline: float) -> Dict[str, Any]:
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._ready.wait(left_s) or self._ends.is_set():
                why = f": {self._problem}" if self._problem else ""
                raise AgentError("not_ready", f"The model is not ready{why}.", transient=True)
            with self._pipes:
                worker = self._worker
                if worker is not None and worker.poll() is None:
                    message = self._exchange(worker, data, media_type, deadline)
                    break
            # It has ended just now, which the other thread has not noticed yet.
            time.sleep(_NOTICE_S)
        if "failure" in message:
            failure = decode(Failure, message["failure"])
            raise AgentError(failure.kind, failure.message, hint=failure.hint)
        result: Dict[str, Any] = message["result"]
        return result

    def _exchange(
        self, worker: subprocess.Popen[bytes], data: bytes, media_type: str, deadline: float
    ) -> Dict[str, Any]:
        stdin, stdout = _get_pipes(worker)
        try:
            write_frame(stdin, {"media_type": media_type}, data, deadline)
            message, _ = read_frame(stdout, deadline)
        except TimeoutError:
            self._drop(worker)
            raise AgentError(
                "too_slow", f"No answer within {self._answer_s:.0f} seconds.", transient=True
            ) from None
        except (EOFError, OSError, ValueError) as error:
            self._drop(worker)
            raise AgentError(
                "killed",
                "The model stopped while it worked on this input; it is started again.",
                transient=True,
            ) from error
        if message.get("ends"):
            self._drop(worker)
        return message

    def _drop(self, worker: subprocess.Popen[bytes]) -> None:
        """End a process that must not be asked again."""
        self._ready.clear()
        worker.kill()
        worker.wait()

    def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._ends.is_set():
            begin = time.monotonic()
            self._run_once()
            if time.monotonic() - begin > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            elif self._ends.wait(pause_s):
                return
            else:
                pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    def _run_once(self) -> None:
        """Start the process, wait until it is ready, and then until it ends."""
        try:
            worker = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            self._problem = str(error)
            return
        self._worker = worker
        try:
            if not self._ends.is_set() and self._wait_for_models(worker):
                worker.wait()
                if not self._ends.is_set():
                    self._note(f"the model's process ended with status {worker.returncode}")
        finally:
            self._ready.clear()
            worker.kill()
            worker.wait()
            # A request may still read from the pipes, whose numbers would be used again.
            with self._pipes:
                self._worker = None
                for pipe in (worker.stdin, worker.stdout):
                    if pipe is not None:
                        pipe.close()

    def _wait_for_models(self, worker: subprocess.Popen[bytes]) -> bool:
        try:
            message, _ = read_frame(_get_pipes(worker)[1], time.monotonic() + _START_S)
        except (EOFError, OSError, ValueError):
            self._note("the model's process ended while it loaded the models")
            return False
        if "failure" in message:
            self._note(decode(Failure, message["failure"]).message)
            return False
        self._problem = ""
        self._ready.set()
        return True

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            sys.stderr.write(f"{problem}\n")
            with contextlib.suppress(OSError):
                sys.stderr.flush()
        self._problem = problem


def _get_pipes(worker: subprocess.Popen[bytes]) -> Tuple[int, int]:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("the process has no pipes")
    return worker.stdin.fileno(), worker.stdout.fileno()
