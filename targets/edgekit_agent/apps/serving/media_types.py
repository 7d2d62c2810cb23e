"""Media types and sizes of the samples that an app takes."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

# Programs such as curl state these types for any bytes.
_UNSTATED = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_IMAGES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/bmp",
    "image/gif",
    "image/jpg",
    "image/x-ms-bmp",
)
_SOUNDS = ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave")
_TEXTS = ("text/plain",)
_ROWS = ("application/json",)
_TYPES: Dict[str, Tuple[str, ...]] = {
    "image": _IMAGES,
    "audio": _SOUNDS,
    "form": _ROWS,
    "text": _TEXTS,
    "folder": (*_IMAGES, *_SOUNDS, *_TEXTS, *_ROWS),
}
_BEGINNINGS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"BM", "image/bmp"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "audio/wav"),
    (b"{", "application/json"),
)
_MIB = 1 << 20
_MOST_BYTES = {
    "image": 32 * _MIB,
    "audio": 64 * _MIB,
    "folder": 64 * _MIB,
    "form": 16 * _MIB,
    "text": 4 * _MIB,
}
_NAMES = {
    "image": "a picture (JPEG, PNG, WebP, BMP or GIF)",
    "audio": "a sound recording (WAV)",
    "form": "the values of the form (JSON)",
    "text": "plain text",
    "folder": "a picture, a sound recording, text or JSON",
}


def choose_media_type(input_kind: str, stated: str, data: bytes) -> Optional[str]:
    """Return the media type of a body; ``None`` if the app does not take it.

    Args:
        input_kind: what the app takes.
        stated: the header Content-Type, with its parameters; empty if there is none.
        data: the body, whose first bytes tell the type where none is stated.
    """
    media_type = stated.partition(";")[0].strip().lower()
    allowed = _TYPES[input_kind]
    if media_type in allowed:
        return media_type
    if media_type in _UNSTATED:
        found = _recognize(data)
        return found if found in allowed else allowed[0]
    return None


def get_most_bytes(input_kind: str) -> int:
    """Return the size of the largest body that an app takes."""
    return _MOST_BYTES[input_kind]


def describe_input(input_kind: str) -> str:
    """Return what an app takes, in words."""
    return _NAMES[input_kind]


def _recognize(data: bytes) -> str:
    """Return the media type of bytes by their beginning; empty if it is unknown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((name for start, name in _BEGINNINGS if data.startswith(start)), "")
