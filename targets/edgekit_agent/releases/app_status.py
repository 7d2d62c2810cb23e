"""State of the named homes of a device."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator, Optional, Tuple

from edgekit_agent.boot.watch import read_pending_watch
from edgekit_agent.failures import AgentError
from edgekit_agent.releases.current import both_releases
from edgekit_agent.releases.homes import Home, list_apps
from edgekit_agent.releases.provenance import Provenance, read_provenance
from edgekit_agent.releases.store import read_release
from edgekit_agent.results import AppStatus, Release


def describe_apps(home: Home) -> Tuple[AppStatus, ...]:
    """Describe the named homes that have a release, by name."""
    return tuple(_iter_apps(home))


def _iter_apps(home: Home) -> Iterator[AppStatus]:
    for each in list_apps(home):
        watch = read_pending_watch(each)
        current, previous = both_releases(each)
        if current or previous:
            yield AppStatus(
                each.app,
                _describe_briefly(each, current),
                _describe_briefly(each, previous),
                _find_provenance(each, current),
                _find_provenance(each, previous),
                watch,
            )


def describe_release(home: Home, name: str) -> Release:
    """Return the record of a release; of a damaged one, a record with its name alone."""
    try:
        return read_release(home, name)
    except AgentError:
        return Release(name, "", "", 0, None, "", "")


def _describe_briefly(home: Home, name: Optional[str]) -> Optional[Release]:
    return replace(describe_release(home, name), files=()) if name else None


def _find_provenance(home: Home, name: Optional[str]) -> Optional[Provenance]:
    return read_provenance(home.release(name)) if name else None
