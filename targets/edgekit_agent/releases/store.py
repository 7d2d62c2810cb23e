"""Releases on a device: disk space, lock, integrity, and removal of leftovers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from typing import Iterator, List, Set

from edgekit_agent.boot.mounts import find_nearest_folder
from edgekit_agent.failures import AgentError
from edgekit_agent.files import sha256_of
from edgekit_agent.releases.homes import (
    AGENT_TEMPORARY,
    PART,
    STAGING,
    TEMPORARY,
    TEMPORARY_OBJECT,
    Home,
    claim,
)
from edgekit_agent.releases.records import PLAIN_NAME, RECORD, read_record
from edgekit_agent.results import Release

_LOCK_WAIT_S = 2.0
_LOCK_RETRY_S = 0.1
_PART_AGE_S = 24 * 3600.0


def free_bytes(home: Home) -> int:
    """Return the free disk space for the home, measured at the nearest existing folder."""
    facts = os.statvfs(find_nearest_folder(home.path))
    return facts.f_bavail * facts.f_frsize


def is_noexec(home: Home) -> bool:
    """Return whether the file system of the home is mounted so that no library loads from it."""
    return bool(os.statvfs(find_nearest_folder(home.path)).f_flag & getattr(os, "ST_NOEXEC", 0))


@contextlib.contextmanager
def lock_home(home: Home) -> Iterator[None]:
    """Lock a home against other agents, after creating its folders.

    Raises:
        AgentError: ``busy`` when another agent holds the lock for over two seconds; see ``claim``.
    """
    claim(home)
    with open(os.path.join(home.path, "lock"), "ab") as file:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AgentError(
                        "busy",
                        f"{home.path} is in use by another edgekit run",
                        hint="wait until it is finished, then run the command again",
                        transient=True,
                    ) from None
            time.sleep(_LOCK_RETRY_S)
        yield


def read_release(home: Home, name: str) -> Release:
    """Read the record of a release.

    Raises:
        AgentError: ``corrupt``.
    """
    folder = home.release(name)
    try:
        return read_record(folder)
    except (ValueError, OSError) as error:
        hint = "push the bundle again"
        path = os.path.join(folder, RECORD)
        raise AgentError("corrupt", f"{path}: damaged: {error}", hint=hint) from error


def find_damaged_files(home: Home, release: Release) -> List[str]:
    """Return the names of the files of a release that are missing or have another digest."""
    folder = home.release(release.name)
    paths = {file.name: os.path.join(folder, file.name) for file in release.files}
    return [
        file.name
        for file in release.files
        if not os.path.isfile(paths[file.name]) or sha256_of(paths[file.name]) != file.digest
    ]


def discard(home: Home, kind: str, name: str) -> None:
    """Remove a release or a runtime; it is renamed first, so that no part of it is ever in use."""
    staging = home.staging(kind)
    os.rename(os.path.join(home.folder(kind), name), staging)
    shutil.rmtree(staging, ignore_errors=True)


def sweep(home: Home) -> None:
    """Remove temporary files of interrupted runs. The home must be locked.

    Only files with edgekit's own temporary names are removed; those that cannot be removed stay.
    """
    forms = (
        (home.path, TEMPORARY),
        (home.folder("objects"), TEMPORARY_OBJECT),
        (home.folder("releases"), STAGING),
        (home.folder("runtimes"), STAGING),
        *((home.release(name), TEMPORARY) for name in list_folders(home, "releases")),
    )
    for folder, form in forms:
        for entry in os.listdir(folder):
            if form.fullmatch(entry):
                remove(os.path.join(folder, entry))
    # Recent ones may still be in use, by an interrupted agent or by one that starts.
    aged = ((home.folder("parts"), PART), (os.path.join(home.path, "agent"), AGENT_TEMPORARY))
    for folder, form in aged:
        for entry in os.listdir(folder) if os.path.isdir(folder) else ():
            path = os.path.join(folder, entry)
            if form.fullmatch(entry) and time.time() - os.lstat(path).st_mtime > _PART_AGE_S:
                remove(path)


def remove(path: str) -> None:
    """Remove a file or a folder, or as much of it as can be removed now."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)


def list_folders(home: Home, kind: str) -> Set[str]:
    """Return the names in ``releases`` or ``runtimes`` that can be edgekit's own."""
    try:
        entries = list(os.scandir(home.folder(kind)))
    except FileNotFoundError:
        return set()
    plain_entries = (e for e in entries if PLAIN_NAME.fullmatch(e.name))
    return {e.name for e in plain_entries if e.is_dir(follow_symlinks=False)}
