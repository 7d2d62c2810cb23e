"""The statement of a package as text of a job: deflated, in base64."""

from __future__ import annotations

import base64
import binascii
import zlib

from edgekit_agent.apps.package_format import MOST_PACKAGE_BYTES
from edgekit_agent.failures import AgentError


def encode_statement(data: bytes) -> str:
    """Return the text of ``package.json`` that is sent."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def decode_statement(text: str) -> bytes:
    """Return the bytes of ``package.json``.

    Raises:
        AgentError: ``bad_job``: the text is damaged, or expands to more than a statement may have.
    """
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), MOST_PACKAGE_BYTES + 1)
        if not unpacker.eof:
            raise ValueError("incomplete, or too large")
    except (binascii.Error, zlib.error, ValueError) as error:
        raise AgentError("bad_job", f"package.json: {error}") from error
    return data
