"""Digests of the files of an unpacked runtime, kept in its folder."""

from __future__ import annotations

import json
import os
from typing import Dict, Iterator, List

from edgekit_agent import strictjson
from edgekit_agent.files import is_intact, open_regular, sha256_of
from edgekit_agent.releases.records import DIGEST

LISTING = "edgekit-files.json"
_MOST_BYTES = 64 << 20


def write_listing(site: str) -> None:
    """Write the digests of the files of a runtime into its folder."""
    digests = {os.path.relpath(path, site): sha256_of(path) for path in _iter_files(site)}
    with open(os.path.join(site, LISTING), "w", encoding="utf-8") as file:
        json.dump(digests, file, indent=0, sort_keys=True)


def find_damaged_files(site: str) -> List[str]:
    """Return the paths of the files of a runtime that are missing or changed.

    Files that were added later, such as compiled modules, do not count.
    """
    try:
        digests = _read_listing(os.path.join(site, LISTING))
    except (OSError, ValueError):
        return [LISTING]
    return [
        path for path, digest in digests.items() if not is_intact(os.path.join(site, path), digest)
    ]


def _iter_files(folder: str) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        yield from (os.path.join(base, name) for name in names)


def _read_listing(path: str) -> Dict[str, str]:
    with open_regular(path) as file:
        values = strictjson.load(file, _MOST_BYTES)
    if not isinstance(values, dict) or not values:
        raise ValueError("not a listing")
    for name, digest in values.items():
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or ".." in name.split("/"):
            raise ValueError("not a listing")
    return values
