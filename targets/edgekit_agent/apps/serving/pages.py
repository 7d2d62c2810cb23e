"""Static files of an app's page: a list made once, from which alone files are served."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict

INDEX = "index.html"
_MOST_FILES = 1000
# Media types by the end of a file name; of other files, the default.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}
DEFAULT_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Asset:
    """A file of the page, and its media type."""

    path: str
    media_type: str


def list_assets(folder: str) -> Dict[str, Asset]:
    """Return the files below a folder by their paths in a URL; the index also as ``/``."""
    assets: Dict[str, Asset] = {}
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(base, name)
            if not os.path.islink(path) and len(assets) < _MOST_FILES:
                ending = os.path.splitext(name)[1].lower()
                media_type = MEDIA_TYPES.get(ending, DEFAULT_TYPE)
                relative = os.path.relpath(path, folder).replace(os.sep, "/")
                assets[f"/{relative}"] = Asset(path, media_type)
    if f"/{INDEX}" in assets:
        assets["/"] = assets[f"/{INDEX}"]
    return assets
