"""Output of edgekit app serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgekit.packaging.web.server import CERTIFICATE, AppServer


def format_server(folder: Path, server: AppServer) -> str:
    """Format the addresses of a server, and how tablets come to trust it."""
    lines = [f"serving {folder} until Ctrl-C:", *(f"  {each}" for each in server.addresses)]
    return "\n".join([*lines, *_iter_notes(server)])


def _iter_notes(server: AppServer) -> Iterator[str]:
    if server.authority is None:
        if server.is_public:
            yield (
                "note: by http, browsers give other computers neither camera and microphone nor "
                "use without a network; use --https"
            )
        else:
            yield "note: this computer alone reaches it; use --https for tablets"
        return
    others = [each for each in server.addresses if "//localhost" not in each]
    yield "each tablet has to trust your certificate once:"
    yield f"  open {others[0] if others else server.addresses[0]}{CERTIFICATE} there"
    yield "  iPad: install it in Settings, General, VPN & Device Management; then switch it on in"
    yield "    General, About, Certificate Trust Settings"
    yield "  Android: Settings, Security, Install a certificate, CA certificate"
    yield f"  its file here: {server.authority.path}"
    yield f"  SHA-256 fingerprint: {server.authority.fingerprint}"
