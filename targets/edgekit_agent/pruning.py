"""Remove releases, objects and runtimes that no kept release needs."""

from __future__ import annotations

import contextlib
import os
from typing import Optional, Set, Tuple

from edgekit_agent.failures import AgentError
from edgekit_agent.records import DIGEST
from edgekit_agent.releases import Home, discard, folders, read_release, remove
from edgekit_agent.served import current_release, previous_release


def prune(home: Home) -> None:
    """Remove releases that nothing points to, and objects and runtimes that no other one needs.

    The home must be locked. What is not edgekit's stays, and so does what cannot be removed now.
    Where a record is damaged, nobody knows what its release needs: no object or runtime goes.
    """
    kept = _kept(home)
    _discard_all(home, "releases", folders(home, "releases") - kept)
    needed = needs(home)
    if needed is None:
        return
    objects, sites = needed
    for name in os.listdir(home.folder("objects")):
        if DIGEST.fullmatch(name) and name not in objects:
            remove(home.object(name))
    standing = folders(home, "runtimes")
    _discard_all(
        home, "runtimes", {n for n in standing if os.path.realpath(home.runtime(n)) not in sites}
    )


def needs(home: Home) -> Optional[Tuple[Set[str], Set[str]]]:
    """Digests and sites that releases are made of; ``None`` where a record is damaged."""
    try:
        releases = [read_release(home, name) for name in _kept(home)]
    except AgentError:
        return None
    return (
        {file.digest for release in releases for file in release.files},
        {os.path.realpath(os.path.expanduser(r.site)) for r in releases if r.site},
    )


def _kept(home: Home) -> Set[str]:
    return {name for name in (current_release(home), previous_release(home)) if name}


def _discard_all(home: Home, kind: str, names: Set[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            discard(home, kind, name)
