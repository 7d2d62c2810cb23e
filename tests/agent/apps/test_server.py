"""The loopback server of an app: answers, refusals, and clients that misbehave."""

import contextlib
import json
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.builders.apps.device import ROW, wait_for

pytestmark = pytest.mark.slow

SAMPLE = json.dumps(ROW)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(installed):
    with installed.serve() as running:
        running.wait_until_ready()
        yield running


def test_health_names_the_app_and_its_model(server, installed):
    health = server.ask("GET", "/health").json
    assert (health["name"], health["version"], health["ready"]) == ("leaf", "1.0", True)
    assert re.fullmatch("[0-9a-f]{64}", health["model"])
    assert health["check"] == {"state": "same"}
    assert health["release"] == installed.served()


def test_a_sample_is_answered_with_result_confidence_and_time(server):
    reply = server.predict()
    assert reply.status == 200
    assert reply.json["kind"] == "class"
    assert reply.json["result"] in "01234"
    assert 0 < reply.json["ms"] < 60_000
    assert "confidence" in reply.json


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}], ids=str
)
def test_a_body_without_a_type_of_its_own_is_taken_as_the_input_of_the_app(server, headers):
    assert server.ask("POST", "/predict", SAMPLE, headers).status == 200


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/?query=1", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/config.json", "application/json"),
    ],
)
def test_the_page_and_its_files_are_served(server, path, media_type):
    reply = server.ask("GET", path)
    assert (reply.status, reply.headers["Content-Type"]) == (200, media_type)
    assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in reply.headers
    assert server.ask("HEAD", path).body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/pages/index.html",
        "/../package.json",
        "/%2e%2e/package.json",
        "/..%2fpackage.json",
        "//etc/passwd",
        "/page.js/",
        "/%00",
        "/icons/",
        "/models/main/model.onnx",
    ],
)
def test_everything_else_is_not_found(server, path):
    reply = server.ask("GET", path)
    assert reply.status == 404
    assert reply.json["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/predict"),
        ("DELETE", "/predict"),
        ("POST", "/"),
        ("PUT", "/health"),
        ("OPTIONS", "/predict"),
        ("BREW", "/predict"),
    ],
)
def test_other_methods_are_refused(server, method, path):
    assert server.ask(method, path).status == 405


@pytest.mark.parametrize(
    ("status", "code", "body", "headers"),
    [
        (400, "bad_sample", b"", {**JSON, "Content-Length": "0"}),
        (400, "bad_sample", b"{", JSON),
        (400, "bad_sample", b"[1]", JSON),
        (400, "bad_sample", b'{"x": "a word"}', JSON),
        (400, "bad_sample", b'{"y": 1}', JSON),
        (400, "bad_sample", b'{"x": NaN}', JSON),
        (415, "bad_type", b"x", {"Content-Type": "image/png"}),
        (415, "bad_type", b"x", {"Content-Type": "text/html"}),
        (413, "too_large", b"x" * (16 << 20) + b"x", JSON),
        (400, "bad_request", b"x", {**JSON, "Transfer-Encoding": "chunked"}),
        (400, "bad_request", b"x", {**JSON, "Content-Length": "-1"}),
        (400, "bad_request", b"x", {**JSON, "Content-Length": "1x"}),
    ],
    ids=str,
)
def test_bad_requests_are_refused_with_words(server, status, code, body, headers):
    reply = server.ask("POST", "/predict", body, headers)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert " " in reply.json["error"]["message"]
    assert server.predict().status == 200


def test_a_body_of_spaces_alone_is_empty(server):
    reply = server.predict(" \n")
    assert reply.status == 400
    assert "empty" in reply.json["error"]["message"]


def test_a_form_with_a_file_is_refused_with_the_way_to_send_it(server):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    reply = server.ask("POST", "/predict", b"--b--", headers)
    assert reply.status == 415
    assert "--data-binary" in reply.json["error"]["hint"]


def test_a_request_without_a_length_is_refused(server):
    answer = exchange(server, b"POST /predict HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1@evil", ""])
def test_a_foreign_host_name_is_refused(server, host):
    reply = server.ask("GET", "/health", headers={"Host": host})
    assert reply.status == 403
    assert f"http://127.0.0.1:{server.port}/" in reply.json["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]:8080", "LOCALHOST:1"])
def test_names_of_this_device_are_taken(server, host):
    assert server.ask("GET", "/health", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_pages_of_other_sites_cannot_ask(server, headers):
    assert server.ask("POST", "/predict", SAMPLE, {**JSON, **headers}).status == 403


def test_the_own_page_can_ask(server):
    origin = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.ask("POST", "/predict", SAMPLE, {**JSON, **origin}).status == 200


def test_a_connection_is_used_again(server):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert b'"ready": true' in read_answer(connection)


def test_a_client_that_waits_for_permission_gets_it(server):
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(SAMPLE)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(SAMPLE.encode())
        assert b"HTTP/1.1 200 " in connection.recv(1000)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nxx",
    ],
)
def test_nonsense_is_refused(server, data):
    assert re.match(rb"HTTP/1\.1 4\d\d |HTTP/1\.1 505 ", exchange(server, data))
    assert server.ask("GET", "/health").status == 200


HIDDEN = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        (b"GET /", b"Content-Length: %d" % len(HIDDEN)),
        (b"HEAD /page.js", b"Content-Length: %d" % len(HIDDEN)),
        (b"POST /nothing", b"Content-Length: %d" % len(HIDDEN)),
        (b"POST /predict", b"Transfer-Encoding: chunked"),
        (b"POST /predict", b"Content-Length: %d\r\nTransfer-Encoding: identity" % len(HIDDEN)),
        (b"POST /predict", b"Content-Length: -1"),
        (b"POST /predict", b"Content-Length: 1\r\nContent-Length: 2"),
        (b"POST /predict", b"Content-Length : %d" % len(HIDDEN)),
        (b"POST /predict", b"no header\r\nContent-Length: %d" % len(HIDDEN)),
    ],
)
def test_what_is_in_a_body_is_never_a_request(server, line, headers):
    request = line + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n\r\n" + HIDDEN
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request)
        for part in iter(lambda: connection.recv(1000), b""):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "headers",
    [
        b"Host: evil@localhost",
        b"Host: localhost/evil.example",
        b"Host: localhost#.evil.example",
        b"Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example",
    ],
)
def test_other_sites_cannot_hide_their_names(server, headers):
    assert b" 403 " in exchange(server, b"GET /health HTTP/1.1\r\n" + headers + b"\r\n\r\n")


def test_a_request_for_another_server_is_refused(server):
    head = b"GET http://%s/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert b" 200 " in exchange(server, head % b"localhost")
    assert b" 403 " in exchange(server, head % b"evil.example")


def test_bodies_of_many_clients_do_not_fill_the_memory(server):
    """Of 30 bodies of 15 MB, as many are held as the limit of 256 MiB allows."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15000001\r\n\r\n"
    status = Path(f"/proc/{server.process.pid}/status")
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
    try:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall(head + b" " * 15_000_000)
        wait_for(lambda: any(is_closed(connection) for connection in connections))
        used_mib = int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) >> 10
        assert used_mib < 420
        assert server.ask("GET", "/health").status == 200
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: server.predict().status == 200)


def test_slow_clients_are_cut_off_and_do_not_delay_others(server):
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    ends = threading.Event()

    def dribble():
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 10_000:
            for connection in connections:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    continue
            if ends.wait(0.5):
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        begin = time.monotonic()
        assert server.predict().status == 200
        assert time.monotonic() - begin < 5
        wait_for(lambda: is_closed(connections[0]), 40)
    finally:
        ends.set()
        thread.join()
        for connection in connections:
            connection.close()


def test_too_many_connections_are_refused_and_the_others_answered(server):
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(80)]
    try:
        time.sleep(0.5)
        answers = [is_closed(connection) for connection in connections]
        assert 10 <= sum(answers) <= 20
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: is_answering(server))


def test_many_requests_at_a_time_are_answered_or_refused(server):
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(server.predict())) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status for reply in replies} <= {200, 503}
    assert sum(reply.status == 200 for reply in replies) >= 9
    assert all(r.headers["Retry-After"] for r in replies if r.status == 503)


def is_answering(server):
    try:
        return server.ask("GET", "/health").status == 200
    except OSError:
        return False


def is_closed(connection):
    connection.settimeout(0.05)
    try:
        while connection.recv(1000):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def exchange(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data)
        return connection.recv(1000)


def read_answer(connection):
    answer = b""
    while not answer.endswith(b"}\n"):
        answer += connection.recv(1000)
    return answer
