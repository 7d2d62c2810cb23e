"""Settings of nginx and Apache that serve a web app with the headers that it needs."""

from __future__ import annotations

from pathlib import Path

from edgekit.remote.web.static_files import HEADERS
from edgekit_agent.apps.serving.pages import DEFAULT_TYPE, MEDIA_TYPES

_ZIPPED = (
    *("text/css", "text/javascript", "text/plain", "application/json"),
    *("application/manifest+json", "application/wasm", "application/octet-stream", "image/svg+xml"),
)


def format_nginx(folder: Path) -> str:
    """Return the server block of nginx."""
    headers = "\n".join(
        f'    add_header {name} "{value}" always;' for name, value in _list_headers()
    )
    types = "\n".join(f"        {kind} {' '.join(ends)};" for kind, ends in _group_types().items())
    return f"""\
# nginx: a server for the web app; certificate and name are yours.
server {{
    listen 443 ssl;
    server_name app.example.org;
    ssl_certificate     /etc/ssl/app.crt;
    ssl_certificate_key /etc/ssl/app.key;

    root {_quote(folder)};
    index index.html;
    types {{
{types}
    }}
    default_type {DEFAULT_TYPE};
    gzip on;
    gzip_comp_level 6;
    gzip_types {" ".join(_ZIPPED)};
{headers}
}}
"""


def format_apache(folder: Path) -> str:
    """Return the virtual host of Apache, which needs its modules headers, deflate and ssl."""
    headers = "\n".join(
        f'    Header always set {name} "{value}"' for name, value in _list_headers()
    )
    return f"""\
# Apache (a2enmod headers deflate ssl): a host for the web app; certificate and name are yours.
<VirtualHost *:443>
    ServerName app.example.org
    SSLEngine on
    SSLCertificateFile    /etc/ssl/app.crt
    SSLCertificateKeyFile /etc/ssl/app.key

    DocumentRoot {_quote(folder)}
    <Directory {_quote(folder)}>
        Require all granted
    </Directory>
    AddType application/wasm .wasm
    AddType application/manifest+json .webmanifest
    AddType text/javascript .js .mjs
    AddOutputFilterByType DEFLATE {" ".join(_ZIPPED)}
{headers}
</VirtualHost>
"""


def _quote(folder: Path) -> str:
    """Return the path of a folder in quotes, as both servers read it."""
    escaped = str(folder.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _group_types() -> dict[str, list[str]]:
    """Return the ends of file names by media type."""
    grouped: dict[str, list[str]] = {}
    for end, kind in MEDIA_TYPES.items():
        grouped.setdefault(kind.partition(";")[0], []).append(end.removeprefix("."))
    return grouped


def _list_headers() -> list[tuple[str, str]]:
    # The browser asks each time whether a file changed, so that a new release is seen at once.
    return [*HEADERS.items(), ("Cache-Control", "no-cache")]
