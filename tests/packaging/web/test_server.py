"""The server of a web app: headers, compression, what it does not serve, and https."""

import contextlib
import gzip
import http.client
import os
import re
import signal
import ssl
import subprocess
import sys

import pytest
from cryptography import x509

from edgekit.errors import UserError
from edgekit.packaging.web.certificates import open_authority
from edgekit.packaging.web.server import CERTIFICATE
from edgekit.packaging.web.server_settings import format_apache, format_nginx
from edgekit.remote.web.static_files import HEADERS
from tests.builders.projects import edgekit
from tests.packaging.web.served_app import serve

WASM = b"\0asm" + bytes(5000)


@pytest.fixture
def app(tmp_path):
    """A folder with the files by which a web app is known."""
    folder = tmp_path / "app"
    (folder / "runtime").mkdir(parents=True)
    for name in ("index.html", "sw.js", "config.json"):
        (folder / name).write_text(f"{name} of the app\n" * 50)
    (folder / "runtime" / "ort.wasm").write_bytes(WASM)
    (folder / ".secret").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    return folder


def ask(server, path, method="GET", *, context=None, **headers):
    kind = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
    options = {} if context is None else {"context": context}
    connection = kind("127.0.0.1", server.port, timeout=20, **options)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


def test_files_have_their_types_the_isolation_headers_and_no_other_origin(app):
    with serve(app) as server:
        page, data = ask(server, "/")
        wasm, raw = ask(server, "/runtime/ort.wasm?v=1")
    assert data == (app / "index.html").read_bytes()
    assert page.headers["Content-Type"].startswith("text/html")
    assert (wasm.headers["Content-Type"], raw) == ("application/wasm", WASM)
    for answer in (page, wasm):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "http" not in policy
    assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert page.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_files_are_compressed_for_browsers_that_take_it(app):
    encoding = {"Accept-Encoding": "gzip, br"}
    with serve(app) as server:
        answer, data = ask(server, "/runtime/ort.wasm", **encoding)
        head, nothing = ask(server, "/runtime/ort.wasm", "HEAD", **encoding)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(data) < len(WASM) / 10
    assert gzip.decompress(data) == WASM
    assert nothing == b""
    assert head.headers["Content-Length"] == str(len(data))


def test_a_file_is_sent_again_only_if_it_changed(app):
    with serve(app) as server:
        first, _ = ask(server, "/sw.js")
        tag = {"If-None-Match": first.headers["ETag"]}
        same, nothing = ask(server, "/sw.js", **tag)
        (app / "sw.js").write_text("a new release")
        new, data = ask(server, "/sw.js", **tag)
    assert (same.status, nothing) == (304, b"")
    assert (new.status, data) == (200, b"a new release")
    assert first.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        *("/no-such-file", "/.secret", "/../outside.txt", "/%2e%2e/outside.txt", "/link.txt"),
        *("/runtime", "/runtime/", "//etc/passwd", "/a%00b", "/..%5coutside.txt", "/" + "a" * 5000),
    ],
)
def test_nothing_but_files_of_the_app_is_served(app, path):
    with serve(app) as server:
        answer, data = ask(server, path)
    assert answer.status == 404
    assert b"secret" not in data


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_sent_to_it(app, method):
    with serve(app) as server:
        answer, _ = ask(server, "/config.json", method)
    assert answer.status == 501


def test_https_is_trusted_by_those_who_trust_the_authority(app, tmp_path):
    authority = open_authority(tmp_path / "config")
    again = open_authority(tmp_path / "config")
    assert again.certificate == authority.certificate, "tablets trust it once"
    assert again.fingerprint == authority.fingerprint
    assert (tmp_path / "config" / "web" / "ca.key").stat().st_mode & 0o777 == 0o600
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    with serve(app, host="127.0.0.1", authority=authority) as server:
        page, data = ask(server, "/", context=context)
        _, certificate = ask(server, f"/{CERTIFICATE}", context=context)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(server, "/", context=ssl.create_default_context())
    assert data == (app / "index.html").read_bytes()
    assert "Strict-Transport-Security" in page.headers
    assert certificate == authority.certificate
    assert server.addresses == (f"https://localhost:{server.port}/",)


def test_the_authority_can_sign_for_local_addresses_only(tmp_path):
    made = x509.load_pem_x509_certificate(open_authority(tmp_path).certificate)
    limits = made.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    names = [each.value for each in limits.value.permitted_subtrees]
    assert "localhost" in names
    assert all(not n.is_global for n in names if hasattr(n, "is_global") and n.prefixlen)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_damaged_authority_is_told(tmp_path):
    path = open_authority(tmp_path).path
    path.write_text("damaged")
    with pytest.raises(UserError, match="certificate authority is damaged"):
        open_authority(tmp_path)


def test_a_folder_without_a_web_app_is_refused(tmp_path):
    done = edgekit("app", "serve", tmp_path)
    assert done.code == 2
    assert "not the folder of a web app" in done.err
    assert "--target web" in done.err


def test_a_port_that_is_taken_is_told(app):
    with serve(app) as server:
        done = edgekit("app", "serve", app, "--port", server.port)
    assert done.code == 2
    assert f"port {server.port}" in done.err
    assert "--port" in done.err


@pytest.mark.parametrize("https", [False, True])
def test_the_command_says_where_and_how_to_trust_and_ends_with_interrupt(app, tmp_path, https):
    command = [sys.executable, "-m", "edgekit", "app", "serve", str(app), "--port", "0"]
    command += ["--https"] if https else []
    environment = os.environ | {"EDGEKIT_CONFIG": str(tmp_path / "config")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
        assert process.wait(20) == 0
    said = "".join(lines)
    scheme = "https" if https else "http"
    assert re.search(rf"{scheme}://localhost:\d+/", said)
    assert ("SHA-256 fingerprint" in said) == https
    assert (CERTIFICATE in said) == https


def test_settings_of_nginx_and_apache_have_every_header(app):
    nginx, apache = format_nginx(app), format_apache(app)
    for name, value in HEADERS.items():
        assert f'add_header {name} "{value}" always;' in nginx
        assert f'Header always set {name} "{value}"' in apache
    assert "application/wasm wasm;" in nginx
    assert "text/javascript js mjs;" in nginx
    spaced = app.rename(app.with_name('my "app"'))
    quoted = str(spaced).replace('"', '\\"')
    assert f'    root "{quoted}";\n' in format_nginx(spaced)
    assert f'    DocumentRoot "{quoted}"\n' in format_apache(spaced)
    spaced.rename(app)
    said = edgekit("app", "serve", app, "--snippets")
    assert said.code == 0
    assert said.out.rstrip() == f"{nginx}\n{apache}".rstrip()
