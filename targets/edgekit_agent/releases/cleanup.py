"""Removal of releases, objects and runtimes that no kept release needs."""

from __future__ import annotations

import contextlib
import os
from typing import Dict, Optional, Set, Tuple

from edgekit_agent.failures import AgentError
from edgekit_agent.releases.current import current_release, previous_release
from edgekit_agent.releases.homes import Home, list_apps
from edgekit_agent.releases.records import DIGEST
from edgekit_agent.releases.store import discard, list_folders, lock_main, read_release, remove


def remove_unneeded(home: Home) -> None:
    """Remove all but the served and the previous release, and objects and runtimes they don't need.

    The newest runtime of each kind that no kept release of any name uses stays as a spare: a later
    release of that kind need not transfer it again. ``remove_spares`` frees its space.

    The home must be locked. Entries that are not edgekit's stay, and so do those that cannot be
    removed now. If a record is damaged, the needs of its release are unknown: no object or runtime
    is removed.
    """
    kept_releases = _find_kept(home)
    _discard_all(home, "releases", list_folders(home, "releases") - kept_releases)
    objects = find_needed_objects(home)
    if objects is None:
        return
    for name in os.listdir(home.folder("objects")):
        if DIGEST.fullmatch(name) and name not in objects:
            remove(home.object(name))
    with contextlib.suppress(AgentError), lock_main(home):  # if it is busy, the next change does it
        _remove_unused_runtimes(Home(home.main_path))


def _remove_unused_runtimes(home: Home) -> None:
    sites = find_used_runtimes(home)
    if sites is None:
        return
    unused = _find_unused(home, sites)
    kinds = {_get_kind(os.path.basename(site)) for site in sites}
    kinds |= {read_release(home, name).runtime for name in _find_kept(home)}
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
    with contextlib.suppress(AgentError), lock_main(home):
        used = find_used_runtimes(home)
        if used is not None:
            sites = used | ({_resolve(site)} if site else set())
            _discard_all(home, "runtimes", _find_unused(home, sites))


def remove_runtimes(home: Home, sites: Set[str]) -> Tuple[str, ...]:
    """Remove those of some runtimes that no release of any name uses, and return their names.

    The main home must be locked.
    """
    used = find_used_runtimes(home)
    if used is None:
        return ()
    unused = {name for name in _find_unused(home, used) if _resolve(home.runtime(name)) in sites}
    _discard_all(home, "runtimes", unused)
    return tuple(sorted(unused))


def _find_unused(home: Home, sites: Set[str]) -> Set[str]:
    standing = list_folders(home, "runtimes")
    return {name for name in standing if os.path.realpath(home.runtime(name)) not in sites}


def _get_kind(name: str) -> str:
    """Return the runtime that a folder holds, the first part of its name."""
    return name.partition("-")[0]


def _resolve(site: str) -> str:
    return os.path.realpath(os.path.expanduser(site))


def find_needed_objects(home: Home) -> Optional[Set[str]]:
    """Return the digests of objects that releases need; ``None`` if a record is damaged."""
    try:
        releases = [read_release(home, name) for name in _find_kept(home)]
    except AgentError:
        return None
    return {file.digest for release in releases for file in release.files}


def find_used_runtimes(home: Home) -> Optional[Set[str]]:
    """Return the runtimes that releases of all names use; ``None`` if a record is damaged.

    Of a named home every release counts, not only the served and the previous one: another agent
    may be about to serve it.
    """
    main = Home(home.main_path)
    try:
        used = list_sites(main, _find_kept(main))
        for each in list_apps(home):
            used |= list_sites(each, list_folders(each, "releases"))
    except AgentError:
        return None
    return used


def list_sites(home: Home, releases: Set[str]) -> Set[str]:
    """Return the runtimes that releases of a home use.

    Raises:
        AgentError: ``corrupt``: a record is damaged.
    """
    sites = (read_release(home, name).site for name in releases)
    return {_resolve(site) for site in sites if site}


def _find_kept(home: Home) -> Set[str]:
    return {name for name in (current_release(home), previous_release(home)) if name}


def _discard_all(home: Home, kind: str, names: Set[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            discard(home, kind, name)
