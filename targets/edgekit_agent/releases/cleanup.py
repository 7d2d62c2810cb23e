"""Removal of releases, objects and runtimes that no kept release needs."""

from __future__ import annotations

import contextlib
import os
from typing import Dict, Optional, Set, Tuple

from edgekit_agent.failures import AgentError
from edgekit_agent.releases.current import current_release, previous_release
from edgekit_agent.releases.homes import Home
from edgekit_agent.releases.records import DIGEST
from edgekit_agent.releases.store import discard, list_folders, read_release, remove


def remove_unneeded(home: Home) -> None:
    """Remove all but the served and the previous release, and objects and runtimes they don't need.

    The newest runtime of each kind that no kept release uses stays as a spare: a later release of
    that kind need not transfer it again. ``remove_spares`` frees its space.

    The home must be locked. Entries that are not edgekit's stay, and so do those that cannot be
    removed now. If a record is damaged, the needs of its release are unknown: no object or runtime
    is removed.
    """
    kept_releases = _find_kept(home)
    _discard_all(home, "releases", list_folders(home, "releases") - kept_releases)
    needs = find_needs(home)
    if needs is None:
        return
    objects, sites = needs
    for name in os.listdir(home.folder("objects")):
        if DIGEST.fullmatch(name) and name not in objects:
            remove(home.object(name))
    unused = _find_unused(home, sites)
    kinds = {_get_kind(os.path.basename(site)) for site in sites}
    kinds |= {read_release(home, name).runtime for name in kept_releases}
    spares: Dict[str, str] = {}
    for name in sorted(unused, key=lambda n: (os.lstat(home.runtime(n)).st_mtime_ns, n)):
        if _get_kind(name) not in kinds:
            spares[_get_kind(name)] = name
    _discard_all(home, "runtimes", unused - set(spares.values()))


def remove_spares(home: Home, site: Optional[str]) -> None:
    """Remove the runtimes that no release uses, to free space. The home must be locked.

    Args:
        home: the home.
        site: the runtime of a release that is about to be installed, which stays.
    """
    needs = find_needs(home)
    if needs is not None:
        sites = needs[1] | ({_resolve(site)} if site else set())
        _discard_all(home, "runtimes", _find_unused(home, sites))


def _find_unused(home: Home, sites: Set[str]) -> Set[str]:
    standing = list_folders(home, "runtimes")
    return {name for name in standing if os.path.realpath(home.runtime(name)) not in sites}


def _get_kind(name: str) -> str:
    """Return the runtime that a folder holds, the first part of its name."""
    return name.partition("-")[0]


def _resolve(site: str) -> str:
    return os.path.realpath(os.path.expanduser(site))


def find_needs(home: Home) -> Optional[Tuple[Set[str], Set[str]]]:
    """Return the digests and runtimes that releases need; ``None`` if a record is damaged."""
    try:
        releases = [read_release(home, name) for name in _find_kept(home)]
    except AgentError:
        return None
    return (
        {file.digest for release in releases for file in release.files},
        {_resolve(release.site) for release in releases if release.site},
    )


def _find_kept(home: Home) -> Set[str]:
    return {name for name in (current_release(home), previous_release(home)) if name}


def _discard_all(home: Home, kind: str, names: Set[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            discard(home, kind, name)
