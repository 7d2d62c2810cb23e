"""The loopback server of an app: its page, its state, and the answers of its models."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any

from edgekit_agent.apps.serving.body_budget import BodyBudget
from edgekit_agent.apps.serving.error_log import ErrorLog
from edgekit_agent.apps.serving.http_requests import RequestHandler
from edgekit_agent.apps.serving.served_app import ServedApp
from edgekit_agent.failures import AgentError

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
_MOST_CONNECTIONS = 64
# Of the bodies of all requests: those of four of the largest.
_MOST_BODY_BYTES = 256 << 20
_TEXT = b'{"error": {"code": "busy", "message": "Too many connections; try again."}}\n'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


def parse_port(text: str) -> int:
    """Parse the option ``--port``; 0 = any free port.

    Raises:
        ArgumentTypeError: it is not the number of a port.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


class AppServer(ThreadingHTTPServer):
    """A server on the loopback address, with a thread for each connection.

    Attributes:
        app: what it serves.
        errors: errors of the app's own code.
        bodies: limit of the bytes of all requests at a time.
    """

    daemon_threads = True
    # Connections that are open at the end are not waited for.
    block_on_close = False
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, port: int, app: ServedApp) -> None:
        self.app, self.errors = app, ErrorLog()
        self.bodies = BodyBudget(_MOST_BODY_BYTES)
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            super().__init__((HOST, port), RequestHandler)
        except OSError as error:
            raise AgentError(
                "no_port",
                f"port {port} of this device cannot be used: {error.strerror}",
                hint="choose another port: --port N",
            ) from error

    def server_bind(self) -> None:
        """Bind the address, without asking for the name of this device, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Start a thread for a connection, or refuse it if there are too many."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except BaseException:  # no thread could be started
                self._free.release()
                raise
            return
        request.settimeout(0.1)
        with contextlib.suppress(OSError):
            request.sendall(_REFUSAL)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer the requests of a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Report an error of this program; a client that hangs up or is too slow is none."""
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ValueError)):
            super().handle_error(request, client_address)
