"""The app's own function that runs while the server does, in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Type

from edgekit_agent.apps.installed import App, get_site, read_statement
from edgekit_agent.failures import AgentError
from edgekit_agent.user_modules import describe_user_error, import_user_function

_ANSWER_S, _END_S = 300.0, 5.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 1.0, 60.0
# A process that ran this long is started again after the first pause.
_STEADY_S = 60.0


class BackgroundProcess:
    """A process that is started again when it fails, until the block ends.

    Args:
        command: starts the process, which ends when its standard input does.
    """

    def __init__(self, command: List[str]) -> None:
        self._command, self._ends = command, threading.Event()
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._thread = threading.Thread(target=self._keep_running, daemon=True)

    def __enter__(self) -> BackgroundProcess:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._ends.set()
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(_END_S)

    def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._ends.is_set():
            begin = time.monotonic()
            if self._run_once():
                return
            if time.monotonic() - begin > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            if self._ends.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    def _run_once(self) -> bool:
        """Run the process until it ends; return whether the function has returned."""
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        except OSError as error:  # such as too little memory for one more process
            sys.stderr.write(f"{error}\n")
            return False
        return self._process.wait() == 0


def run_background(app: App, release: str, port: int) -> int:
    """Call the app's own function until it returns, or until standard input ends.

    The function gets a function that answers (bytes, media type) as ``POST /predict`` does, and an
    event that is set at the end.
    """
    package, stop = read_statement(app.home, release), threading.Event()
    site = get_site(app.home, package)
    if site is not None:
        sys.path.insert(0, site)
    folder = os.path.join(app.home.release(release), "app")
    threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    try:
        function = import_user_function(package.background, folder=folder)
        function(make_answer(port), stop)
    except Exception as error:  # noqa: BLE001 - any error of the app's own code
        if stop.is_set():
            return 0
        text = error if isinstance(error, AgentError) else describe_user_error(error)
        sys.stderr.write(f"{package.background}: {text}\n")
        return 1
    return 0


def make_answer(port: int) -> Callable[[bytes, str], Dict[str, Any]]:
    """Return a function that answers a sample by the server at a port.

    It raises ``AgentError`` where the server refuses the sample.
    """

    def answer(data: bytes, media_type: str) -> Dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
        try:
            connection.request("POST", "/predict", data, {"Content-Type": media_type})
            response = connection.getresponse()
            values: Dict[str, Any] = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise AgentError("no_answer", f"the server does not answer: {problem}") from problem
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            error = values.get("error", {})
            raise AgentError(str(error.get("code")), str(error.get("message")))
        return values

    return answer


def _wait_for_end(stop: threading.Event) -> None:
    while os.read(0, 1):
        pass
    stop.set()
    # A function that does not look at the event must not outlive the server.
    threading.Timer(_END_S, os._exit, (0,)).start()
