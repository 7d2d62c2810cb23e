"""Edgekit's folder (home) on a device, and how it is told from other programs' folders.

A folder is a home if it holds the file ``MARKER``. A folder that is empty or missing becomes one.
Homes of versions before the marker lack it; they are recognized by their entries. Any other folder
belongs to another program, and nothing is written into or removed from it.

Releases that are installed under a name have a home of their own, ``apps/NAME`` in the main home.
It shares the trusted keys, the runtimes and the audit log of the main home.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List

from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, open_regular, write_atomic
from edgekit_agent.releases.records import DIGEST, PLAIN_NAME, RECORD

DEFAULT_HOME = "~/.local/share/edgekit"
MARKER, MARKER_TEXT = ".edgekit-home", b"edgekit keeps its files here\n"
FOLDERS = ("objects", "parts", "runtimes", "releases")
APPS = "apps"
# In the folder of a release that is an app, which was installed from a package file.
APP_STATEMENT = "package.json"
APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
MOST_APPS = 100

STAGING = re.compile(r"\.staging-[0-9a-f]{8}")
PART = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{64}\.part")
TEMPORARY = re.compile(r"\.[A-Za-z0-9_.+@-]{1,200}\.[0-9a-f]{8}\.tmp")
TEMPORARY_OBJECT = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}\.tmp")

AGENT_TEMPORARY = re.compile(r"\.edgekit_agent-[0-9a-f]{16}\.pyz\.\d+\.tmp")

_AGENT = re.compile(rf"edgekit_agent-[0-9a-f]{{16}}\.pyz|{AGENT_TEMPORARY.pattern}")
_LINK = re.compile(r"releases/[A-Za-z0-9_][^/]*|current/\.previous")
_FILES = ("lock", "trust.json", "audit.jsonl", "audit.1.jsonl")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Home:
    """The folder that holds everything edgekit keeps on a device, or there under one name.

    Attributes:
        path: the folder.
        main: path of the main home whose keys, runtimes and log a named home shares; else empty.
    """

    path: str
    main: str = ""

    @property
    def app(self) -> str:
        """Name of a named home; empty for the main home."""
        return os.path.basename(self.path) if self.main else ""

    @property
    def main_path(self) -> str:
        """Path of the home that holds the keys, the runtimes and the audit log."""
        return self.main or self.path

    @property
    def apps(self) -> str:
        """Path of the folder of the named homes."""
        return os.path.join(self.main_path, APPS)

    def folder(self, kind: str) -> str:
        """Return the path of ``objects``, ``parts``, ``runtimes`` or ``releases``."""
        return os.path.join(self.main_path if kind == "runtimes" else self.path, kind)

    def object(self, digest: str) -> str:
        """Return the path of a verified blob."""
        return os.path.join(self.path, "objects", check_digest(digest))

    def part(self, digest: str, wire_digest: str) -> str:
        """Return the path of a blob that is being received."""
        name = f"{check_digest(digest)}.{check_digest(wire_digest)}.part"
        return os.path.join(self.path, "parts", name)

    def runtime(self, name: str) -> str:
        """Return the folder of an unpacked runtime."""
        return os.path.join(self.folder("runtimes"), check_name(name, "runtime"))

    def release(self, name: str) -> str:
        """Return the folder of a release."""
        return os.path.join(self.path, "releases", check_name(name, "release"))

    def staging(self, kind: str) -> str:
        """Return a temporary path for an incomplete entry; ``sweep`` removes leftovers."""
        return os.path.join(self.folder(kind), make_staging_name())


def make_staging_name() -> str:
    """Return a new name of an incomplete entry, or of one that is being removed."""
    return f".staging-{secrets.token_hex(4)}"


def open_home(path: str, app: str = "") -> Home:
    """Return the home at a path, or a named home in it; nothing is created.

    Args:
        path: the folder, ``~/.local/share/edgekit`` if empty. The folder of a named home is opened
            as such, with the keys of its main home.
        app: name of a home in it.

    Raises:
        AgentError: ``bad_job``: the name is not valid; ``foreign_home``: the folder of the named
            home is a link, no folder, or another user's.
    """
    folder = os.path.abspath(os.path.expanduser(path or DEFAULT_HOME))
    main = _find_main(os.path.realpath(folder))
    if not app:
        return Home(os.path.realpath(folder), main) if main else Home(folder)
    if main or not APP_NAME.fullmatch(app):
        what = f"{folder} is the folder of a name itself" if main else f"not a name: {app[:40]!r}"
        raise AgentError("bad_job", what, hint="a name has 1 to 32 of a-z, 0-9 and -; a-z is first")
    home = Home(os.path.join(folder, APPS, app), folder)
    for each in (home.apps, home.path):
        _check_named_folder(home, each)
    return home


def list_apps(home: Home) -> List[Home]:
    """Return the named homes of a device, by name."""
    if os.path.islink(home.apps) or not os.path.isdir(home.apps):
        return []
    entries = [
        entry.name
        for entry in os.scandir(home.apps)
        if APP_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
    ]
    found = (Home(os.path.join(home.apps, name), home.main_path) for name in sorted(entries))
    return [each for each in found if is_marked(each)]


def _find_main(folder: str) -> str:
    """Return the path of the main home if a folder is that of a named home, else empty."""
    apps, name = os.path.split(folder)
    main = os.path.dirname(apps)
    is_named = os.path.basename(apps) == APPS and APP_NAME.fullmatch(name)
    return main if is_named and is_marked(Home(main)) else ""


def _check_named_folder(home: Home, folder: str) -> None:
    """Refuse a folder through which another user, or another program, could serve a release."""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return
    owners = (0, os.geteuid(), os.stat(home.main_path).st_uid)
    if stat.S_ISDIR(found.st_mode) and found.st_uid in owners:
        return
    what = "belongs to another user" if stat.S_ISDIR(found.st_mode) else "is not a folder"
    raise AgentError(
        "foreign_home",
        f"{folder} {what}; nothing was changed there",
        hint="remove it, or choose another folder: --home",
    )


def check_digest(digest: str) -> str:
    """Check that a text is a digest, and return it.

    Raises:
        AgentError: ``bad_job``.
    """
    if not DIGEST.fullmatch(digest):
        raise AgentError("bad_job", f"not a sha256 in hex: {digest[:200]!r}")
    return digest


def check_name(name: str, what: str) -> str:
    """Check that a text is a plain file name without a leading dot, and return it.

    Raises:
        AgentError: ``bad_job``.
    """
    if not PLAIN_NAME.fullmatch(name):
        raise AgentError("bad_job", f"not a valid {what} name: {name[:200]!r}")
    return name


def claim(home: Home) -> None:
    """Create the home and its folders, or check that the folder is a home.

    A new home and one that was empty are for their user alone; see ``get_shared_mode``.

    Raises:
        AgentError: ``foreign_home``: the folder has entries that are not edgekit's; ``read_only``.
    """
    if home.main:
        claim(Home(home.main))
        _make_named(home)
    elif not os.path.lexists(home.path):
        os.makedirs(home.path, 0o700)
        fsync_folder(os.path.dirname(home.path))
    _check_writable(home)
    if not is_marked(home):
        _mark(home)
    mode = 0o700 | get_shared_mode(home)
    for kind in FOLDERS:
        if home.main and kind == "runtimes":
            continue
        folder = home.folder(kind)
        os.makedirs(folder, 0o700, exist_ok=True)
        # Objects, with their samples, and partial downloads are private to this user.
        folder_mode = mode if kind in ("runtimes", "releases") else 0o700
        if os.stat(folder).st_mode & 0o777 != folder_mode:
            os.chmod(folder, folder_mode)


def _make_named(home: Home) -> None:
    """Create the folder of a named home, with the permissions of the main home."""
    mode = 0o700 | get_shared_mode(home)
    if not os.path.isdir(home.path) and len(list_apps(home)) >= MOST_APPS:
        raise AgentError(
            "too_many_names",
            f"{home.apps} holds {MOST_APPS} names already",
            hint="remove one: edgekit uninstall HOST NAME",
        )
    for folder in (home.apps, home.path):
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
            fsync_folder(os.path.dirname(folder))
        if os.stat(folder).st_mode & 0o777 != mode and os.access(folder, os.W_OK | os.X_OK):
            os.chmod(folder, mode)


def get_shared_mode(home: Home) -> int:
    """Return the mode bits of group and others on a home; installed files get the same.

    So ``chmod 750`` of the home lets its group run the served release.
    """
    return os.stat(home.main_path).st_mode & 0o055


def share(home: Home, path: str) -> None:
    """Give a file, or a folder with its entries, the permissions that the home has."""
    bits = get_shared_mode(home)
    for folder, _, names in os.walk(path):
        os.chmod(folder, 0o700 | bits)
        for name in names:
            _share_file(os.path.join(folder, name), bits)
    if not os.path.isdir(path):
        _share_file(path, bits)


def _share_file(path: str, bits: int) -> None:
    if not os.path.islink(path):
        os.chmod(path, 0o600 | bits & 0o044)


def _check_writable(home: Home) -> None:
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise AgentError(
            "read_only",
            f"edgekit's folder {home.path} is not writable",
            hint="free some space or remount it, or choose another folder: --home, "
            "or EDGEKIT_HOME on the device",
        )


def is_marked(home: Home) -> bool:
    """Return whether a folder holds the marker, as every home does since its first change."""
    path = os.path.join(home.path, MARKER)
    return os.path.isfile(path) and not os.path.islink(path)


def _mark(home: Home) -> None:
    """Put the marker into a home that is empty or older than the marker."""
    if os.stat(home.path).st_uid not in (0, os.geteuid()):
        # The owner of the folder could replace the served release.
        raise AgentError(
            "foreign_home",
            f"{home.path} belongs to another user; nothing was changed there",
            hint="choose a folder of your own: --home, or EDGEKIT_HOME on the device",
        )
    entries = list(os.scandir(home.path))
    for entry in entries:
        if not _is_ours(entry):
            raise _make_foreign_error(home, entry.name)
    if not entries and not home.main:
        os.chmod(home.path, 0o700)
    write_atomic(os.path.join(home.path, MARKER), MARKER_TEXT)


def _make_foreign_error(home: Home, name: str) -> AgentError:
    return AgentError(
        "foreign_home",
        f"{home.path} contains {name!r}, which edgekit did not write; nothing was changed",
        hint="choose an empty or new folder: --home, or EDGEKIT_HOME on the device; if only "
        "edgekit uses this one: touch {os.path.join(home.path, MARKER)}",
    )


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Return whether edgekit may have created an entry of a folder, with all that is below it."""
    if entry.name in _CONTENT:
        is_ours = _CONTENT[entry.name]
        return entry.is_dir() and all(map(is_ours, list(os.scandir(entry.path))))
    if entry.name in ("current", "previous"):
        return entry.is_symlink() and bool(_LINK.fullmatch(os.readlink(entry.path)))
    is_known = entry.name in _FILES or TEMPORARY.fullmatch(entry.name)
    return bool(is_known) and not entry.is_dir()


def _is_object(entry: os.DirEntry[str]) -> bool:
    is_named = DIGEST.fullmatch(entry.name) or TEMPORARY_OBJECT.fullmatch(entry.name)
    return bool(is_named) and entry.is_file(follow_symlinks=False)


def _is_part(entry: os.DirEntry[str]) -> bool:
    return bool(PART.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)


def _is_agent(entry: os.DirEntry[str]) -> bool:
    return bool(_AGENT.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)


def _is_runtime(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder holds unpacked wheels, or nothing yet."""
    if STAGING.fullmatch(entry.name):
        return True
    if not PLAIN_NAME.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
        return False
    names = os.listdir(entry.path)
    return not names or any(name.endswith(".dist-info") for name in names)


def _is_release(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder holds a release, by its record or else by its manifest."""
    if STAGING.fullmatch(entry.name):
        return True
    if not PLAIN_NAME.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
        return False
    return any(
        recorded_name == entry.name for recorded_name in _iter_recorded_names(entry.path)
    ) or _has_matching_manifest(entry)


def _iter_recorded_names(folder: str) -> Iterator[str]:
    try:
        with open_regular(os.path.join(folder, RECORD)) as file:
            record = json.loads(file.read(_MOST_BYTES))
            yield record["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return


def _has_matching_manifest(entry: os.DirEntry[str]) -> bool:
    try:
        with open_regular(os.path.join(entry.path, "manifest.json")) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except (OSError, ValueError):
        return False
    return len(entry.name) == 16 and digest.startswith(entry.name)


_CONTENT: Dict[str, Callable[[os.DirEntry[str]], bool]] = {
    "agent": _is_agent,
    "objects": _is_object,
    "parts": _is_part,
    "runtimes": _is_runtime,
    "releases": _is_release,
}
