"""Files that are complete or absent: hash, write, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from typing import BinaryIO, Iterator, Union

CHUNK = 1 << 20
# Errors of link(2) where a file system has no hard links, or no more of them.
_NO_HARD_LINK = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS)


def sha256_of(path: str) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def is_intact(path: str, digest: str) -> bool:
    """Return whether a path is a file, not a link, whose bytes have a digest."""
    return os.path.isfile(path) and not os.path.islink(path) and sha256_of(path) == digest


@contextlib.contextmanager
def open_regular(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; refuse pipes and devices, which may never end.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("not a regular file")
    with os.fdopen(handle, "rb") as file:
        yield file


def fsync_folder(path: str) -> None:
    """Flush a folder to disk, so that the names in it survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name(path: str) -> str:
    """Return a unique hidden file name in the folder of ``path``."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def open_atomic(path: str, *, is_private: bool = False) -> Iterator[BinaryIO]:
    """Open a new file that replaces ``path`` when the block ends without an error.

    At any time, also after a power cut, ``path`` is the old file or the complete new one. A
    private file can be read by its owner alone.
    """
    path = os.path.abspath(path)
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            if is_private:
                os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_folder(os.path.dirname(path))


def link_or_copy(source: str, path: str) -> None:
    """Link a file to a new path, or copy it where the file system has no hard links."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        with open(source, "rb") as original, open_atomic(path) as copy:
            shutil.copyfileobj(original, copy)


def write_atomic(path: str, data: Union[bytes, bytearray], *, is_private: bool = False) -> None:
    """Write ``data`` to ``path`` atomically."""
    with open_atomic(path, is_private=is_private) as file:
        file.write(data)


def write_if_changed(path: str, text: str) -> bool:
    """Write a file atomically unless it has this text already; return whether it was written."""
    data = text.encode(errors="surrogateescape")
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return False
    except FileNotFoundError:
        pass
    write_atomic(path, data)
    return True
