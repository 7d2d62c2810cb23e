"""Releases on a device: disk space, lock, integrity, and removal of leftovers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from typing import BinaryIO, Iterator, List, Set

from edgekit_agent.boot.mounts import find_nearest_folder, forbids_programs
from edgekit_agent.failures import AgentError
from edgekit_agent.files import link_or_copy, sha256_of
from edgekit_agent.releases.homes import (
    AGENT_TEMPORARY,
    PART,
    STAGING,
    TEMPORARY,
    TEMPORARY_OBJECT,
    Home,
    claim,
    list_apps,
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
    return forbids_programs(home.path)


@contextlib.contextmanager
def lock_home(home: Home, *, creates: bool = True) -> Iterator[None]:
    """Lock a home against other agents, after creating its folders.

    Args:
        home: the home.
        creates: create a named home that is missing; the main home is created anyway.

    Raises:
        AgentError: ``busy`` when another agent holds the lock for over two seconds;
            ``no_such_name`` for a named home that is missing; see ``claim``.
    """
    path = os.path.join(home.path, "lock")
    while True:
        if home.main and not creates and not os.path.isdir(home.path):
            raise make_missing_error(home)
        claim(home)
        with open(path, "ab") as file:
            _wait_for_lock(home, file)
            # A named home that was waited for may have been removed meanwhile.
            if _is_file_at(file, path):
                yield
                return


def _is_file_at(file: BinaryIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _wait_for_lock(home: Home, file: BinaryIO) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AgentError(
                    "busy",
                    f"{home.path} is in use by another edgekit run",
                    hint="wait until it is finished, then run the command again",
                    transient=True,
                ) from None
        time.sleep(_LOCK_RETRY_S)


@contextlib.contextmanager
def lock_main(home: Home) -> Iterator[None]:
    """Lock the main home as well, for a change of what all names share. The home must be locked.

    Raises:
        AgentError: ``busy``; see ``lock_home``.
    """
    with lock_home(Home(home.main)) if home.main else contextlib.nullcontext():
        yield


def make_missing_error(home: Home) -> AgentError:
    """Return the error that nothing is installed under a name."""
    names = ", ".join(each.app for each in list_apps(home)) or "none"
    return AgentError(
        "no_such_name", f"nothing is installed under the name {home.app}; names there: {names}"
    )


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


def adopt_object(home: Home, digest: str) -> str:
    """Return the path of an object; if it is missing, link it from another home of the device."""
    path = home.object(digest)
    if os.path.lexists(path):
        return path
    source = next((p for p in list_copies(home, digest) if os.path.isfile(p)), None)
    if source is not None:
        link_or_copy(source, path)
    return path


def list_copies(home: Home, digest: str) -> List[str]:
    """Return the paths that an object can have in the home and in the others of the device."""
    others = (Home(home.main_path), *list_apps(home))
    paths = [home.object(digest), *(each.object(digest) for each in others)]
    return list(dict.fromkeys(paths))


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
        *(() if home.main else ((home.folder("runtimes"), STAGING),)),
        *(((home.apps, STAGING),) if os.path.isdir(home.apps) else ()),
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
