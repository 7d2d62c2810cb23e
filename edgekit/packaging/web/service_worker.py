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


def make_service_worker(name: str, files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return the service worker that caches the files of an app, and the name of the release.

    The name differs if one of the files does.

    Args:
        name: Name of the app.
        files: All other files of the app by path.
    """
    digests = {path: hashlib.sha256(files[path]).hexdigest() for path in sorted(files)}
    whole = "".join(f"{path}\0{digest}\n" for path, digest in digests.items())
    release = hashlib.sha256(whole.encode()).hexdigest()[:_RELEASE_DIGITS]
    listed = [
        {"path": path, "digest": digest, "bytes": len(files[path])}
        for path, digest in digests.items()
    ]
    package = {"name": name, "release": release, "files": listed}
    folder = get_shipped_folder("targets/web/app")
    template = (folder / SERVICE_WORKER).read_text(encoding="utf-8")
    before, found, after = template.partition(_BEFORE)
    if not found:
        raise ValueError(f"{SERVICE_WORKER} has no line for the package")
    text = json.dumps(package, indent=1, sort_keys=True)
    return f"{before}{_START}{text};\n{after}".encode(), release


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
