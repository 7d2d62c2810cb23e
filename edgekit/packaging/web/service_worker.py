"""The service worker of a web app: its files with their digests, and the name of the release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from edgekit.config.shipped_files import get_shipped_folder

SERVICE_WORKER = "sw.js"
_BEFORE = 'const PACKAGE = { name: "app", release: "none", files: [] };\n'
_START = "const PACKAGE = "
_RELEASE_DIGITS = 16


def compute_release(files: Mapping[str, bytes]) -> str:
    """Return the name of the release that these files are, which differs if one of them does."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{hashlib.sha256(files[path]).hexdigest()}\n".encode())
    return digest.hexdigest()[:_RELEASE_DIGITS]


def make_service_worker(name: str, files: Mapping[str, bytes]) -> bytes:
    """Return the service worker that caches the files of an app.

    Args:
        name: Name of the app.
        files: All other files of the app by path.
    """
    listed = [
        {
            "path": path,
            "digest": hashlib.sha256(files[path]).hexdigest(),
            "bytes": len(files[path]),
        }
        for path in sorted(files)
    ]
    package = {"name": name, "release": compute_release(files), "files": listed}
    folder = get_shipped_folder("targets/web/app")
    template = (folder / SERVICE_WORKER).read_text(encoding="utf-8")
    before, found, after = template.partition(_BEFORE)
    if not found:
        raise ValueError(f"{SERVICE_WORKER} has no line for the package")
    text = json.dumps(package, indent=1, sort_keys=True)
    return f"{before}{_START}{text};\n{after}".encode()


def read_listed_paths(worker: str) -> frozenset[str]:
    """Return the paths of the files that a service worker caches, and its own.

    Raises:
        ValueError: It is not a service worker that ``make_service_worker`` wrote.
    """
    _, found, rest = worker.partition(_START)
    if not found:
        raise ValueError("it has no package")
    package, _ = json.JSONDecoder().raw_decode(rest)
    return frozenset({SERVICE_WORKER, *(str(file["path"]) for file in package["files"])})
