"""Reader of edgekit's folder on a device without edgekit's own code; prints JSON.

Runs on the device as well: ``python3 - HOME < look.py``. Standard library, Python 3.9.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from typing import Any

_TEMPORARY = re.compile(r"\..*\.tmp|\.staging-.*")


def look(home: str) -> dict[str, Any]:
    """Read the linked releases of a home, the digests of all their files, and its leftovers.

    ``previous`` is the folder that the link of that name points to.
    """
    releases = os.path.join(home, "releases")
    names = [name for name in _list_names(releases) if not name.startswith(".")]
    return {
        "current": _resolve_link(home, "current"),
        "previous": _resolve_link(home, "previous"),
        "releases": {name: _digests(os.path.join(releases, name)) for name in names},
        "watch": _read_record(os.path.join(home, "watch.json")),
        "went_back": [
            line["release"]
            for line in _read_lines(os.path.join(home, "audit.jsonl"))
            if line.get("action") == "go back" and str(line.get("result")).startswith("done")
        ],
        "leftovers": _find_leftovers(home),
        "objects": _list_names(os.path.join(home, "objects")),
    }


def _resolve_link(home: str, link: str) -> str | None:
    place = os.path.join(home, link)
    return os.path.basename(os.path.realpath(place)) if os.path.isdir(place) else None


def _digests(folder: str) -> dict[str, str]:
    found = {}
    for name in _list_names(folder):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def _find_leftovers(home: str) -> list[str]:
    """Return the names of temporary files and folders everywhere except in runtimes."""
    kinds = [kind for kind in _list_names(home) if kind not in ("agent", "parts")]
    folders = [home] + [os.path.join(home, kind) for kind in kinds]
    releases = os.path.join(home, "releases")
    folders += [os.path.join(releases, name) for name in _list_names(releases)]
    return [
        os.path.relpath(os.path.join(folder, name), home)
        for folder in folders
        if not os.path.islink(folder)
        for name in _list_names(folder)
        if _TEMPORARY.fullmatch(name)
    ]


def _list_names(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _read_record(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _read_lines(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            texts = file.read().splitlines()
    except OSError:
        return []
    found = []
    for text in texts:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found


if __name__ == "__main__":
    print(json.dumps(look(os.path.expanduser(sys.argv[1]))))
