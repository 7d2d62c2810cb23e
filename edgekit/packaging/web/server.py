"""Server of a web app in a local network, with the headers that browsers need."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgekit.errors import UserError, reason
from edgekit.packaging.web.certificates import Authority, list_own_addresses
from edgekit.packaging.web.served_files import ServedFile, ServedFolder
from edgekit.packaging.web.web_package import is_web_app
from edgekit.remote.web.static_files import HEADERS

LOOPBACK, EVERYWHERE = "127.0.0.1", ""
_OWN_NAMES = ("localhost", LOOPBACK, "::1")
# The certificate that tablets have to trust.
CERTIFICATE = "edgekit-ca.crt"
_IDLE_S = 60.0
# A year, so that the browser does not fall back to http.
_STRICT = "max-age=31536000"


@dataclass(frozen=True, kw_only=True)
class AppServer:
    """A server that is bound to its port.

    Attributes:
        addresses: Addresses of the page, that of this computer first.
        port: The port.
        is_public: Whether other computers reach it.
        authority: The authority that signed its certificate; ``None`` = it speaks http.
    """

    addresses: tuple[str, ...]
    port: int
    is_public: bool
    authority: Authority | None
    _server: ThreadingHTTPServer

    def serve(self) -> None:
        """Answer requests until ``stop`` is called in another thread."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """End ``serve``."""
        self._server.shutdown()


@contextlib.contextmanager
def open_app_server(
    folder: Path, *, port: int, host: str | None, authority: Authority | None
) -> Iterator[AppServer]:
    """Bind a server of a web app to a port.

    Args:
        folder: Folder of the web app.
        port: The port; 0 = a free one.
        host: Address to listen on; ``None`` = this computer alone for http, and all for https.
        authority: Signs the certificate for https; ``None`` = http.

    Raises:
        UserError: There is no web app in the folder, or the port cannot be used.
    """
    if not is_web_app(folder):
        raise UserError(
            f"{folder}: not the folder of a web app",
            hint="package one: edgekit package BUNDLE --target web -o FOLDER; unpack a .zip first",
        )
    where = host if host is not None else (EVERYWHERE if authority else LOOPBACK)

    class Handler(_Handler):
        files = ServedFolder(folder)
        certificate = authority.certificate if authority else b""

    try:
        server = _Server((where, port), Handler)
    except (OSError, OverflowError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a port"
        raise UserError(
            f"cannot listen on {where or 'all addresses'}, port {port}: {why}",
            hint="choose another port: --port",
        ) from error
    is_public = where not in (LOOPBACK, "localhost", "::1")
    names = ("localhost", *(list_own_addresses() if where in (EVERYWHERE, "0.0.0.0") else ()))
    if is_public and where not in (EVERYWHERE, "0.0.0.0"):
        names = (where,)
    with server:
        if authority is not None:
            server.context = authority.make_context(tuple(dict.fromkeys((*names, *_OWN_NAMES))))
        scheme = "https" if authority else "http"
        yield AppServer(
            addresses=tuple(f"{scheme}://{_quote(n)}:{server.server_port}/" for n in names),
            port=server.server_port,
            is_public=is_public,
            authority=authority,
            _server=server,
        )


def _quote(name: str) -> str:
    return f"[{name}]" if ":" in name else name


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answer a connection; the handshake of https is done in the thread of the connection."""
        with contextlib.suppress(OSError):  # the client went away, or does not trust us yet
            request.settimeout(_IDLE_S)
            if self.context is not None:
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
            if self.context is not None:
                request.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore broken connections; there is no state that they could break."""


class _Handler(BaseHTTPRequestHandler):
    files: ServedFolder
    certificate: bytes
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgekit", ""
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer with a file."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with the headers of a file."""
        self._answer()

    def _answer(self) -> None:
        name = unquote(urlsplit(self.path).path).lstrip("/")
        if self.certificate and name == CERTIFICATE:
            self._send(200, "application/x-x509-ca-cert", self.certificate, {})
            return
        found = self.files.find(name)
        if found is None:
            self._send(404, "text/plain; charset=utf-8", b"There is no such file.\n", {})
            return
        self._send_file(found)

    def _send_file(self, file: ServedFile) -> None:
        headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        known = self.headers.get("If-None-Match", "")
        if file.tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            self._send(304, file.media_type, b"", headers)
            return
        accepted = self.headers.get("Accept-Encoding", "")
        if file.zipped is not None and "gzip" in accepted:
            self._send(200, file.media_type, file.zipped, {**headers, "Content-Encoding": "gzip"})
        else:
            self._send(200, file.media_type, file.data, headers)

    def _send(self, status: int, media_type: str, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        if isinstance(self.connection, ssl.SSLSocket):
            self.send_header("Strict-Transport-Security", _STRICT)
        self.send_header("Content-Type", media_type)
        if status != 304:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log: addresses of users are none of our business."""


def run_in_thread(server: AppServer) -> threading.Thread:
    """Start to serve in a thread of its own, which ends after ``stop``."""
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    return thread
