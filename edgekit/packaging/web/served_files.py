"""Files of a folder as a web server offers them: found safely, compressed, with entity tags."""

from __future__ import annotations

import gzip
import hashlib
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from edgekit.remote.web.static_files import get_media_type

_LEVEL = 6
# Formats that are compressed already.
_INCOMPRESSIBLE = ("image/png", "image/jpeg", "image/webp")
# A smaller saving is not worth the work of the browser.
_WORTH = 0.95


@dataclass(frozen=True, kw_only=True)
class ServedFile:
    """A file with its compressed form, if that is smaller."""

    media_type: str
    tag: str
    data: bytes
    zipped: bytes | None


class ServedFolder:
    """The files of a folder; each is read again when it changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: dict[Path, tuple[tuple[int, int], ServedFile]] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> ServedFile | None:
        """Return a file by its path below the folder; ``None`` if there is none.

        Hidden files, links that lead outside, and everything that is not a file are not served.
        """
        parts = [part for part in name.split("/") if part]
        if any(part.startswith(".") or "\0" in part or "\\" in part for part in parts):
            return None
        path = self._folder.joinpath(*(parts or ["index.html"]))
        try:
            path = path.resolve(strict=True)
            status = path.stat()
        except (OSError, RuntimeError):
            return None
        if not path.is_relative_to(self._folder) or not stat.S_ISREG(status.st_mode):
            return None
        version = (status.st_mtime_ns, status.st_size)
        with self._lock:
            known = self._known.get(path)
            if known is None or known[0] != version:
                known = (version, _read(path))
                self._known[path] = known
        return known[1]


def _read(path: Path) -> ServedFile:
    data = path.read_bytes()
    media_type = get_media_type(path.name)
    zipped = None
    if media_type not in _INCOMPRESSIBLE:
        zipped = gzip.compress(data, _LEVEL, mtime=0)
    return ServedFile(
        media_type=media_type,
        tag=f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        data=data,
        zipped=zipped if zipped is not None and len(zipped) < _WORTH * len(data) else None,
    )
