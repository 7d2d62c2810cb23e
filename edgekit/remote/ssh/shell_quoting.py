"""Quoting of scripts so that every login shell passes them to ``/bin/sh`` unchanged."""

from __future__ import annotations

import string

# Bytes without a special meaning inside single quotes in any shell: csh interprets "!" and line
# ends there, fish interprets backslashes.
PLAIN = frozenset(
    (string.ascii_letters + string.digits + ' _./:=,+@%-;()<>|&{}[]*?~#^$`"').encode()
)
# csh accepts words of at most 1024 bytes.
LONGEST_WORD = 800


def quote_for_login_shell(script: str) -> str:
    """Quote a script as one ASCII line that runs it in ``sh`` from any login shell."""
    parts, part = [], ""
    for byte in script.encode("utf-8", "surrogateescape"):
        part += _escape_byte(byte)
        if len(part) > LONGEST_WORD:
            parts.append(part)
            part = ""
    words = " ".join(f"'{p}'" for p in (*parts, part) if p)
    return f'exec /bin/sh -c \'eval "$(printf %b "$@")"\' sh {words}'


def _escape_byte(byte: int) -> str:
    """Escape a byte for ``printf %b``."""
    if byte == ord("\n"):
        return "\\n"
    return chr(byte) if byte in PLAIN else f"\\0{byte:03o}"
