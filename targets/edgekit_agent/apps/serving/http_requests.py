"""Answers to single requests of HTTP."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
from email import errors
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Dict, Optional, Protocol, Tuple, cast
from urllib.parse import SplitResult, unquote, urlsplit

from edgekit_agent.apps.serving.body_budget import BodyBudget, HeldBytes
from edgekit_agent.apps.serving.error_log import ErrorLog
from edgekit_agent.apps.serving.http_input import TimedInput
from edgekit_agent.apps.serving.media_types import choose_media_type, describe_input, get_most_bytes
from edgekit_agent.apps.serving.served_app import ServedApp
from edgekit_agent.failures import AgentError

_HEAD_S, _SEND_S = 20.0, 60.0
# A body may come as slowly as this, after the first seconds.
_BODY_S, _LEAST_BYTES_PER_S = 10.0, 50_000
# An unread body is dropped up to these limits, so that the client reads the refusal.
_DROP_BYTES, _DROP_S = 256 << 20, 5.0
_CHUNK = 1 << 16
_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
# Headers behind a line that is none would be lost, as is a body whose length they state.
_BAD_HEADERS = (
    errors.MissingHeaderBodySeparatorDefect,
    errors.FirstHeaderLineIsContinuationDefect,
    errors.MisplacedEnvelopeHeaderDefect,
)
_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(self), microphone=(self), geolocation=()"),
    ("Cache-Control", "no-cache"),
)
_STATUS_OF_KIND = {
    "bad_sample": HTTPStatus.BAD_REQUEST,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "not_ready": HTTPStatus.SERVICE_UNAVAILABLE,
    "too_slow": HTTPStatus.SERVICE_UNAVAILABLE,
    "killed": HTTPStatus.SERVICE_UNAVAILABLE,
    "no_memory": HTTPStatus.SERVICE_UNAVAILABLE,
}


class _AppServer(Protocol):
    app: ServedApp
    errors: ErrorLog
    bodies: BodyBudget


class RequestHandler(BaseHTTPRequestHandler):
    """A connection: GET of the page and the state, POST of samples, refusals of everything else."""

    protocol_version = "HTTP/1.1"
    # Small answers are sent at once.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Prepare the connection."""
        super().setup()
        self._input = TimedInput(self.connection)
        self.rfile.close()
        self.rfile = cast(io.BufferedReader, io.BufferedReader(self._input))
        self._unread = 0

    def handle_one_request(self) -> None:
        """Answer one request, whose head must be here in time."""
        self._input.allow(_HEAD_S)
        self._unread = 0
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer a request for the page or the state."""
        self._dispatch()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_GET  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Ask for the body only if it will be read."""
        # The refusals that a request deserves are found before its body is read.
        return True

    @property
    def _app(self) -> ServedApp:
        return cast(_AppServer, self.server).app

    def _dispatch(self) -> None:
        length = self._find_length()
        if length is None:
            # Whatever follows is no further request.
            self._unread = _DROP_BYTES
            self._refuse(
                HTTPStatus.BAD_REQUEST,
                "bad_request",
                "The request states its length wrongly, or its headers are damaged.",
                hint="state the length once, as Content-Length; a body in chunks is not taken",
            )
            return
        self._unread = length
        refusal = self._find_refusal()
        if refusal is not None:
            self._refuse(*refusal)
            return
        path = _get_path(self.path)
        allowed = self._list_methods(path)
        if not allowed:
            self._refuse(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")
        elif self.command not in allowed:
            self._refuse(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "bad_method",
                f"This address answers {', '.join(allowed)} only.",
                (("Allow", ", ".join(allowed)),),
            )
        elif path == "/predict":
            self._answer_sample(length)
        elif path in self._app.documents:
            self._send_json(HTTPStatus.OK, self._app.documents[path]())
        else:
            self._send_asset(path)

    def _list_methods(self, path: str) -> Tuple[str, ...]:
        if path == "/predict":
            return ("POST",)
        is_known = path in self._app.documents or path in self._app.assets
        return ("GET", "HEAD") if is_known else ()

    def _find_length(self) -> Optional[int]:
        """Return the length of the body; ``None`` if it is stated wrongly."""
        stated = self.headers.get_all("Content-Length") or []
        is_damaged = any(isinstance(each, _BAD_HEADERS) for each in self.headers.defects)
        if "Transfer-Encoding" in self.headers or len(set(stated)) > 1 or is_damaged:
            return None
        text = stated[0].strip() if stated else "0"
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    def _find_refusal(self) -> Optional[Tuple[HTTPStatus, str, str]]:
        """Return why a request from another site is refused; ``None`` if it is not.

        A page of another site may resolve its own name to this device, or send it forms.
        """
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1:
            return HTTPStatus.BAD_REQUEST, "bad_host", "The request must name one host."
        target = _split(self.path)
        named = [hosts[0].strip(), *([target.netloc] if target and target.scheme else [])]
        if not all(map(_HOST.fullmatch, named)):
            port = self.connection.getsockname()[1]
            text = f"This app answers on this device only: http://127.0.0.1:{port}/"
            return HTTPStatus.FORBIDDEN, "bad_host", text
        own = f"http://{hosts[0].strip()}".lower()
        is_foreign = any(each.lower() != own for each in self.headers.get_all("Origin") or [])
        if is_foreign or self.headers.get("Sec-Fetch-Site") == "cross-site":
            return HTTPStatus.FORBIDDEN, "bad_origin", "Pages of other sites cannot use this app."
        return None

    def _answer_sample(self, length: int) -> None:
        kind = self._app.package.input
        most_bytes = get_most_bytes(kind)
        if "Content-Length" not in self.headers:
            text = "The request does not state its length."
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "no_length", text)
        elif length > most_bytes:
            text = f"The file is too large: at most {most_bytes >> 20} MB."
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", text)
        elif choose_media_type(kind, self.headers.get("Content-Type", ""), b"") is None:
            text = f"This app takes {describe_input(kind)}."
            is_form = self.headers.get_content_type() == "multipart/form-data"
            hint = "send it alone, as the body: curl --data-binary @FILE" if is_form else ""
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bad_type", text, hint=hint)
        else:
            self._predict(length)

    def _predict(self, length: int) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        with cast(_AppServer, self.server).bodies.hold_bytes() as held:
            self._input.allow(_BODY_S + length / _LEAST_BYTES_PER_S)
            data = self._read_body(held)
            if data is not None:
                self._answer_body(data)

    def _read_body(self, held: HeldBytes) -> Optional[bytes]:
        """Return the body; ``None`` if the client has gone, or was refused."""
        parts = []
        while self._unread:
            part = self.rfile.read1(min(self._unread, _CHUNK))
            if not part:
                self.close_connection = True
                return None
            self._unread -= len(part)
            if not held.add(len(part)):
                text = "Too many large requests at a time; try again."
                status, retry = HTTPStatus.SERVICE_UNAVAILABLE, (("Retry-After", "2"),)
                self._refuse(status, "busy", text, retry)
                return None
            parts.append(part)
        return b"".join(parts)

    def _answer_body(self, data: bytes) -> None:
        if not data or data.isspace():
            text = f"The request is empty; this app takes {describe_input(self._app.package.input)}"
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_sample", f"{text}.")
            return
        stated = self.headers.get("Content-Type", "")
        media_type = choose_media_type(self._app.package.input, stated, data)
        try:
            result = self._app.predictor.predict(data, media_type or "")
        except AgentError as error:
            status = _STATUS_OF_KIND.get(error.failure.kind, HTTPStatus.INTERNAL_SERVER_ERROR)
            retry = (("Retry-After", "2"),) if error.failure.transient else ()
            failure = error.failure
            message, hint = failure.message, failure.hint
            if status == HTTPStatus.INTERNAL_SERVER_ERROR:
                # The reason is for who wrote the app, not for who uses it.
                cast(_AppServer, self.server).errors.write(f"{failure.kind}: {message}")
                message, hint = "The app could not work on this input.", ""
            self._refuse(status, failure.kind, message, retry, hint=hint)
            return
        self._send_json(HTTPStatus.OK, result)

    def _send_asset(self, path: str) -> None:
        asset = self._app.assets[path]
        try:
            file = open(asset.path, "rb")  # noqa: SIM115 - closed by the next statement
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            self._send_head(HTTPStatus.OK, asset.media_type, size)
            if self.command != "HEAD":
                self.connection.settimeout(_SEND_S)
                shutil.copyfileobj(file, self.wfile)
        self._drop_body()

    def _refuse(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        headers: Tuple[Tuple[str, str], ...] = (),
        *,
        hint: str = "",
    ) -> None:
        self._send_json(
            status, {"error": {"code": code, "message": message, "hint": hint}}, headers
        )

    def _send_json(
        self, status: HTTPStatus, values: Dict[str, Any], headers: Tuple[Tuple[str, str], ...] = ()
    ) -> None:
        data = json.dumps(values).encode() + b"\n"
        self._send_head(status, "application/json", len(data), headers)
        if getattr(self, "command", "") != "HEAD":
            self.wfile.write(data)
        self._drop_body()

    def _send_head(
        self,
        status: HTTPStatus,
        media_type: str,
        length: int,
        headers: Tuple[Tuple[str, str], ...] = (),
    ) -> None:
        if self._unread:
            self.close_connection = True
            headers = (*headers, ("Connection", "close"))
        self.connection.settimeout(_SEND_S)
        self.send_response_only(status)
        own = (("Content-Type", media_type), ("Content-Length", str(length)))
        for name, value in (("Date", self.date_time_string()), *own, *_HEADERS, *headers):
            self.send_header(name, value)
        self.end_headers()

    def _drop_body(self) -> None:
        """Drop an unread body, because closing the connection now would drop the answer."""
        count, self._unread = min(self._unread, _DROP_BYTES), 0
        if not count:
            return
        self._input.allow(_DROP_S)
        self.connection.shutdown(socket.SHUT_WR)
        while count:
            chunk = self.rfile.read1(min(count, _CHUNK))
            if not chunk:
                return
            count -= len(chunk)

    def send_error(
        self, code: int, message: Optional[str] = None, explain: Optional[str] = None
    ) -> None:
        """Refuse a request that the base class does not understand."""
        del message, explain
        self.close_connection = True
        self._unread = 0
        # The base class takes a line without a version for a request of HTTP 0.9.
        self.request_version = self.protocol_version
        status, text = HTTPStatus(code), "The request is not understood."
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status, text = HTTPStatus.METHOD_NOT_ALLOWED, "This method is not known here."
        self._refuse(status, "bad_request", text, (("Connection", "close"),))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401 - the base's names
        """Write nothing: requests may be private, and each line wears the storage."""


def _get_path(target: str) -> str:
    """Return the path of a request's target; empty if it has none."""
    parts = _split(target)
    return unquote(parts.path) if parts else ""


def _split(target: str) -> Optional[SplitResult]:
    try:
        return urlsplit(target)
    except ValueError:
        return None
