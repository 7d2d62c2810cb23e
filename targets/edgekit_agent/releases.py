"""Where edgekit's files lie on a device, and the two links that say which release is served."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import Iterator, List, Optional, Set

from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, sha256_of, temporary_name, write_whole
from edgekit_agent.records import Release

DEFAULT_HOME = "~/.local/share/edgekit"
CURRENT, PREVIOUS = "current", "previous"
RECORD = "release.json"

_STAGING = ".staging-"
_LOCK_WAIT_S = 2.0
_LOCK_RETRY_S = 0.1
_PART_AGE_S = 24 * 3600.0


@dataclass(frozen=True)
class Home:
    """The folder that holds everything edgekit keeps on a device."""

    path: str

    def folder(self, kind: str) -> str:
        """``objects``, ``parts``, ``runtimes`` or ``releases``."""
        return os.path.join(self.path, kind)

    def object(self, digest: str) -> str:
        """Where a verified blob lies."""
        return os.path.join(self.path, "objects", checked_digest(digest))

    def part(self, wire_digest: str) -> str:
        """Where the bytes of a blob gather while they come in."""
        return os.path.join(self.path, "parts", f"{checked_digest(wire_digest)}.part")

    def runtime(self, name: str) -> str:
        """Where a runtime stands unpacked."""
        return os.path.join(self.path, "runtimes", checked_name(name, "runtime"))

    def release(self, name: str) -> str:
        """Where a release stands."""
        return os.path.join(self.path, "releases", checked_name(name, "release"))

    def staging(self, kind: str) -> str:
        """A name in a folder for what isn't whole yet; ``sweep`` removes what is left there."""
        return os.path.join(self.path, kind, f"{_STAGING}{secrets.token_hex(4)}")


def open_home(path: str) -> Home:
    """The home at a path, ``~/.local/share/edgekit`` if empty; nothing is created."""
    return Home(os.path.abspath(os.path.expanduser(path or DEFAULT_HOME)))


def checked_digest(digest: str) -> str:
    """The digest, if it is one.

    Raises:
        AgentError: ``bad_job``.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise AgentError("bad_job", f"not a sha256 in hex: {digest!r}")
    return digest


def checked_name(name: str, what: str) -> str:
    """The name, if it is a plain file name that does not hide.

    Raises:
        AgentError: ``bad_job``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*", name):
        raise AgentError("bad_job", f"not a plain {what} name: {name!r}")
    return name


def free_bytes(home: Home) -> int:
    """Free disk space for the home, measured at the nearest folder that exists already."""
    path = home.path
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Make the folders of a home and keep every other agent out of it.

    Raises:
        AgentError: ``busy`` when another one holds it for over two seconds.
    """
    is_new = not os.path.isdir(home.path)
    for kind in ("objects", "parts", "runtimes", "releases"):
        os.makedirs(home.folder(kind), exist_ok=True)
    if is_new:
        fsync_folder(os.path.dirname(home.path))
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
                        hint="wait until it is done, then run the same again",
                        transient=True,
                    ) from None
            time.sleep(_LOCK_RETRY_S)
        yield


def pointed(home: Home, link: str) -> Optional[str]:
    """The release that ``current`` or ``previous`` points to, if it is there."""
    try:
        name = os.path.basename(os.readlink(os.path.join(home.path, link)))
    except FileNotFoundError:
        return None
    return name if os.path.isdir(home.release(name)) else None


def point(home: Home, link: str, release: str) -> None:
    """Let ``current`` or ``previous`` point to a release, in one step that lasts."""
    place = os.path.join(home.path, link)
    temporary = temporary_name(place)
    os.symlink(os.path.join("releases", release), temporary)
    os.replace(temporary, place)
    fsync_folder(home.path)


def read_release(home: Home, name: str) -> Release:
    """The record of a release.

    Raises:
        AgentError: ``corrupt``.
    """
    path = os.path.join(home.release(name), RECORD)
    try:
        with open(path, "rb") as file:
            return decode(Release, json.load(file))
    except (ValueError, FileNotFoundError) as error:
        hint = "push the bundle again"
        raise AgentError("corrupt", f"{path}: damaged: {error}", hint=hint) from error


def write_record(folder: str, release: Release) -> None:
    """Put the record of a release into its folder."""
    write_whole(os.path.join(folder, RECORD), json.dumps(encode(release), indent=1).encode())


def damaged_files(home: Home, release: Release) -> List[str]:
    """Names of the files of a release that are missing or not what they were."""
    folder = home.release(release.name)
    paths = {file.name: os.path.join(folder, file.name) for file in release.files}
    return [
        file.name
        for file in release.files
        if not os.path.isfile(paths[file.name]) or sha256_of(paths[file.name]) != file.digest
    ]


def discard(home: Home, name: str) -> None:
    """Remove a release so that it is never seen by half."""
    staging = home.staging("releases")
    os.rename(home.release(name), staging)
    shutil.rmtree(staging)


def sweep(home: Home) -> None:
    """Remove what interrupted runs left behind. The home must be locked."""
    for kind in ("releases", "runtimes"):
        for entry in os.listdir(home.folder(kind)):
            if entry.startswith(_STAGING):
                shutil.rmtree(os.path.join(home.folder(kind), entry))
    for folder in (home.path, home.folder("objects")):
        for entry in os.listdir(folder):
            if entry.startswith(".") and entry.endswith(".tmp"):
                os.unlink(os.path.join(folder, entry))
    for entry in os.listdir(home.folder("parts")):
        path = os.path.join(home.folder("parts"), entry)
        if time.time() - os.stat(path).st_mtime > _PART_AGE_S:
            os.unlink(path)


def prune(home: Home) -> None:
    """Remove releases that nothing points to, and objects that no release is made of.

    The home must be locked. Where a record is damaged, nobody knows which objects it needs, and
    every object stays.
    """
    kept = {name for name in (pointed(home, CURRENT), pointed(home, PREVIOUS)) if name}
    for name in os.listdir(home.folder("releases")):
        if name not in kept:
            discard(home, name)
    needed = _needed_objects(home, kept)
    if needed is not None:
        for name in set(os.listdir(home.folder("objects"))) - needed:
            os.unlink(os.path.join(home.folder("objects"), name))


def _needed_objects(home: Home, names: Set[str]) -> Optional[Set[str]]:
    try:
        return {file.digest for name in names for file in read_release(home, name).files}
    except AgentError:
        return None
