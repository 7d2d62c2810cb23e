"""A server of the pages that answers as an installed app does, with answers that a test sets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGES = Path(__file__).parents[2] / "targets" / "pages"
CONFIG = {
    "name": "chest",
    "title": "Chest X-ray reader",
    "version": "1.2.0",
    "input": "image",
    "camera": True,
    "microphone": True,
    "notice": "Not a medical device. For training only.",
    "accuracy": "94.1 % of 624 images were right (95 % interval 92.0 to 95.8 %).",
    "model": {"name": "med-pneumonia int8", "version": "3"},
    "language": "en",
    "backend": "./backend-http.js",
}
HEALTH = {"name": "chest", "version": "1.2.0", "ready": True, "check": {"state": "same"}}
TYPES = {".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}


@dataclass(kw_only=True)
class App:
    """A served app: its settings, its answers, and the requests that it got.

    Attributes:
        config: The values of ``config.json``.
        result: The answer to ``POST /predict``, or a function of the body that returns it.
        status: HTTP status of that answer.
        delay_s: Seconds before that answer.
        health: The answer to ``GET /health``.
        bodies: Bodies and media types of the predictions.
        paths: Paths of all requests.
    """

    config: dict = field(default_factory=lambda: dict(CONFIG))
    result: object = None
    status: int = 200
    delay_s: float = 0.0
    health: dict = field(default_factory=lambda: dict(HEALTH))
    bodies: list[tuple[bytes, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    address: str = ""
    stop: Callable[[], None] = lambda: None
    start: Callable[[], None] = lambda: None


class Handler(SimpleHTTPRequestHandler):
    """Files of the pages, ``config.json``, ``/health`` and ``/predict``."""

    protocol_version = "HTTP/1.0"  # a connection does not outlive a server that stops

    def __init__(self, app: App, *rest):
        self.app = app
        self.extensions_map = {**self.extensions_map, **TYPES}
        super().__init__(*rest, directory=str(PAGES))

    def do_GET(self):
        self.app.paths.append(self.path)
        if self.path == "/config.json":
            self.send_json(self.app.config)
        elif self.path == "/health":
            self.send_json(self.app.health)
        else:
            super().do_GET()

    def do_POST(self):
        self.app.paths.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.app.bodies.append((body, self.headers["Content-Type"]))
        time.sleep(self.app.delay_s)
        result = self.app.result
        self.send_json(result(body) if callable(result) else result, self.app.status)

    def send_json(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def end_headers(self):
        # The strictest policy that an installed app sends.
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_):
        pass


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing about a browser that left."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@contextmanager
def serve_app(**settings) -> Iterator[App]:
    """Serve an app on loopback; ``stop`` and ``start`` play a server that went and came back."""
    config = {**CONFIG, **settings.pop("config", {})}
    app = App(config=config, **settings)
    servers: list[QuietServer] = []
    port = 0

    def start():
        nonlocal port
        server = QuietServer(("127.0.0.1", port), partial(Handler, app))
        port = server.server_address[1]
        app.address = f"http://127.0.0.1:{port}/"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)

    def stop():
        server = servers.pop()
        server.shutdown()
        server.server_close()

    app.start, app.stop = start, stop
    start()
    try:
        yield app
    finally:
        if servers:
            stop()
