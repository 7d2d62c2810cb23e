"""Loopback server of the page that runs a model in a browser, and the exchange with that page."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgekit.errors import DeviceError
from edgekit.remote.web.messages import Message, decode_message, encode_message
from edgekit.remote.web.static_files import HEADERS, get_media_type

# The longest time that the page waits for a command before it asks again.
_ASK_AGAIN_S = 20.0
_CHECK_EVERY_S = 0.5
_MOST_ANSWER_BYTES = 1 << 30

Source = bytes | Path


class Page:
    """The page in a browser: commands are sent and answered one at a time."""

    def __init__(self, files: Mapping[str, Source]) -> None:
        self.files = files
        self.token = secrets.token_urlsafe(16)
        self._commands: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[bytes] = queue.Queue()

    def ask(self, message: Message, *, silence_s: float, has_ended: Callable[[], bool]) -> Message:
        """Send a command and wait for its answer.

        Args:
            message: The command.
            silence_s: The longest time to wait.
            has_ended: Tells whether the browser has ended.

        Raises:
            DeviceError: The page or the browser failed.
        """
        self._commands.put(encode_message(message))
        return self.receive(silence_s=silence_s, has_ended=has_ended)

    def receive(self, *, silence_s: float, has_ended: Callable[[], bool]) -> Message:
        """Wait for an answer; the first one is the greeting of the page."""
        waited = 0.0
        while True:
            try:
                answer = decode_message(self._answers.get(timeout=_CHECK_EVERY_S))
                break
            except queue.Empty:
                waited += _CHECK_EVERY_S
            if has_ended():
                raise DeviceError("web: the browser ended", kind="killed")
            if waited > silence_s:
                raise DeviceError(f"web: no answer of the page for {silence_s:g} s", transient=True)
        if "error" in answer.facts:
            raise DeviceError(
                f"web: {answer.facts['error']}", kind=str(answer.facts.get("kind", "model_failed"))
            )
        return answer

    def exchange(self, answer: bytes) -> bytes:
        """Take an answer of the page and return the next command; an empty answer is none."""
        if answer:
            self._answers.put(answer)
        try:
            return self._commands.get(timeout=_ASK_AGAIN_S)
        except queue.Empty:
            return encode_message(Message(facts={"command": "wait"}))

    def read(self, name: str) -> bytes | None:
        """Return a file of the page by its name; ``None`` if there is none."""
        source = self.files.get(name)
        return source.read_bytes() if isinstance(source, Path) else source


@contextlib.contextmanager
def serve_page(files: Mapping[str, Source]) -> Iterator[tuple[Page, str]]:
    """Serve a page on loopback below a random path, so that no other page can reach it.

    Yields:
        The page, and the address to open in the browser.
    """
    page = Page(files)

    class Handler(_Handler):
        served = page

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield page, f"http://127.0.0.1:{server.server_port}/{page.token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Page
    protocol_version = "HTTP/1.1"
    # Head and body leave together and at once: else each answer waits 40 ms for the other side.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer with a file of the page."""
        token, _, name = self.path.lstrip("/").partition("/")
        found = self.served.read(name or "index.html") if token == self.served.token else None
        if found is None:
            self._answer(404, "text/plain", b"not found")
        else:
            self._answer(200, get_media_type(name or "index.html"), found)

    def do_POST(self) -> None:
        """Take an answer of the page; answer with the next command."""
        size = int(self.headers.get("Content-Length") or -1)
        if self.path != f"/{self.served.token}/exchange" or not 0 <= size <= _MOST_ANSWER_BYTES:
            self.close_connection = True
            self._answer(404, "text/plain", b"not found")
            return
        answer = self.rfile.read(size)
        with contextlib.suppress(ConnectionError):
            self._answer(200, "application/octet-stream", self.served.exchange(answer))

    def _answer(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""
