"""Integrity of the cache: an HMAC with a key of the user detects edited entries.

Cached results decide whether a model counts as proven. Whoever edits them could recompute a plain
checksum; the key lies outside the cache and only the user can read it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from edgekit.errors import UserError, reason
from edgekit_agent.files import sha256_of, temporary_name, write_atomic

KEY_FILE = "cache.key"
_KEY_BYTES = 32


def get_config_folder() -> Path:
    """Return ``EDGEKIT_CONFIG``, else ``edgekit`` in the user's configuration folder."""
    if own := os.environ.get("EDGEKIT_CONFIG"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit"


def compute_seal(data: bytes) -> str:
    """Compute the seal (HMAC) of bytes, in hex.

    Raises:
        UserError: The user's key can be neither read nor made.
    """
    return hmac.new(_load_key(get_config_folder() / KEY_FILE), data, hashlib.sha256).hexdigest()


def is_sealed(data: bytes, seal: str) -> bool:
    """Return whether a seal is the HMAC of the bytes with the user's key."""
    return hmac.compare_digest(compute_seal(data).encode(), seal.encode("utf-8", "replace"))


def seal_entry(label: str, data: bytes) -> bytes:
    """Prepend a line with the seal to the data of an entry.

    Args:
        label: Name of the entry; it is sealed as well, so that entries cannot be swapped.
        data: Content of the entry.
    """
    return compute_seal(_add_label(label, data)).encode() + b"\n" + data


def read_entry(label: str, entry: bytes) -> bytes | None:
    """Return the data of an entry; ``None`` if its seal is not valid."""
    seal, _, data = entry.partition(b"\n")
    is_whole = is_sealed(_add_label(label, data), seal.decode("ascii", "replace"))
    return data if is_whole else None


def _add_label(label: str, data: bytes) -> bytes:
    return f"{label}\n".encode() + data


def seal_files(place: Path, files: Sequence[Path]) -> None:
    """Write a seal of the names and contents of files to a file."""
    write_atomic(str(place), compute_seal(_list_digests(files)).encode())


def are_files_sealed(place: Path, files: Sequence[Path]) -> bool:
    """Return whether files are unchanged since they were sealed."""
    try:
        is_whole = is_sealed(_list_digests(files), place.read_text("ascii"))
    except (OSError, ValueError):
        return False
    if is_whole:
        mark_used(place)
    return is_whole


def mark_used(path: Path) -> None:
    """Set the time of a file to now, so that ``edgekit cache --prune`` keeps used entries."""
    with contextlib.suppress(OSError):  # a cache that cannot be written cannot be pruned either
        os.utime(path)


def _list_digests(files: Sequence[Path]) -> bytes:
    return "\n".join(f"{file.name} {sha256_of(str(file))}" for file in files).encode()


@functools.cache
def _load_key(path: Path) -> bytes:
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot store the key that protects the cache: {reason(error)}",
            hint="set EDGEKIT_CONFIG to another folder",
        ) from error
    if len(key) != _KEY_BYTES:
        raise UserError(f"{path}: not a key", hint="delete it; everything is then measured again")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(temporary_name(str(path)))
    write_atomic(str(temporary), secrets.token_bytes(_KEY_BYTES), is_private=True)
    try:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(temporary, path)
    finally:
        temporary.unlink()
