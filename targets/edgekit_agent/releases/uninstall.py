"""Removal of a named home, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import Set, Tuple

from edgekit_agent.boot.start import has_boot_start, remove_boot
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder
from edgekit_agent.jobs import UninstallJob
from edgekit_agent.releases.cleanup import list_sites, remove_runtimes
from edgekit_agent.releases.current import current_release
from edgekit_agent.releases.homes import STAGING, Home, make_staging_name, open_home
from edgekit_agent.releases.store import (
    list_folders,
    lock_home,
    lock_main,
    make_missing_error,
    remove,
)
from edgekit_agent.results import UninstallResult


def uninstall(job: UninstallJob) -> UninstallResult:
    """Remove a named home, the start of its watcher, and the runtimes that nothing else uses.

    Its folder is renamed first, so that a power cut leaves it whole or removes it. The main home,
    other names, and the highest version of a signed release under this name stay.

    Raises:
        AgentError: ``bad_job``, ``no_such_name``, ``busy``.
    """
    if not job.app:
        raise AgentError("bad_job", "no name: the releases without a name cannot be uninstalled")
    home = open_home(job.home, job.app)
    main = Home(home.main)
    if not os.path.isdir(home.path):
        if os.path.isdir(home.apps):  # a power cut may have left the rest of an earlier removal
            remove_boot(home.path)
            with lock_home(main):
                _clear_removed(main)
        raise make_missing_error(home)
    with lock_home(home, creates=False), lock_main(home):
        release, had_boot_start = current_release(home) or "", has_boot_start(home.path)
        os.rename(home.path, os.path.join(home.apps, make_staging_name()))
        # It is gone: a failure to remove the rest must not hide that.
        problem = ""
        runtimes: Tuple[str, ...] = ()
        with contextlib.suppress(OSError):
            fsync_folder(home.apps)
            problem = remove_boot(home.path) if had_boot_start else ""
            runtimes = _clear_removed(main)
    return UninstallResult(release, runtimes, problem)


def _clear_removed(main: Home) -> Tuple[str, ...]:
    """Remove the folders of removed names, and return the runtimes that were removed first."""
    removed: Tuple[str, ...] = ()
    for entry in os.listdir(main.apps):
        if STAGING.fullmatch(entry):
            home = Home(os.path.join(main.apps, entry), main.path)
            removed += remove_runtimes(main, _list_sites(home))
            remove(home.path)
    return removed


def _list_sites(home: Home) -> Set[str]:
    """Return the runtimes that the releases of a home use, as far as their records are intact."""
    found: Set[str] = set()
    for name in list_folders(home, "releases"):
        with contextlib.suppress(AgentError):
            found |= list_sites(home, {name})
    return found
