"""Size of the cache, and removal of all entries or of those unused for long.

Only files of the forms that edgekit writes are counted and removed, and links are never followed:
``EDGEKIT_CACHE`` may name a folder that contains files of others.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.cache.store import get_default_root, lock_exclusively
from edgekit.errors import UserError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DIGEST = "[0-9a-f]{64}"
# Pattern of an entry's path by kind; an entry is a file, or a folder used as a whole.
_FORMS: dict[str, str] = {
    "models": rf"objects/[0-9a-f]{{2}}/{_DIGEST}",
    # "travelling": sizes of transfers in caches of version 0.1
    "figures": r"(candidates|conversions|examples|golden|recorded-inputs|scalings|tallies|timings"
    r"|transfers|travelling|unfinished-tallies)/[0-9a-f]{2}/[0-9a-f]{4,128}\.json",
    "data": rf"(columns|made-up|outputs|states|values)/{_DIGEST}",
    "wheels": r"wheels/[^/]+\.(whl|lock\.json)",
    "web runtimes": r"web-runtime/[^/]+\.tgz",
    "checkpoints": rf"checkpoints/{_DIGEST}",
    "crash reports": r"crashes/[0-9a-f]{16}\.txt",
    "unfinished": r"scratch/tmp[^/]+|wheels/\.fetch-[^/]+|([^/]+/){1,3}\.[^/]+\.[0-9a-f]{8}\.tmp",
    "runtimes": r"host",
}
_PATTERNS = {name: re.compile(form) for name, form in _FORMS.items()}
_DEEPEST = 3


@dataclass(frozen=True, kw_only=True)
class Section:
    """Number and size of the entries of one kind in the cache."""

    name: str
    entries: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Size of the cache, by kind."""

    folder: Path
    sections: tuple[Section, ...]

    @property
    def bytes(self) -> int:
        """Return the total size."""
        return sum(section.bytes for section in self.sections)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Number and size of removed entries, and the remaining size of the cache."""

    entries: int
    bytes: int
    left: Usage


@dataclass(frozen=True)
class _Entry:
    section: str
    path: Path
    bytes: int
    used_at: float


def measure_usage(root: Path | None = None) -> Usage:
    """Measure the size of the cache."""
    folder = root or get_default_root()
    found = list(_iter_entries(folder))
    sections = []
    for name in _FORMS:
        sizes = [entry.bytes for entry in found if entry.section == name]
        if sizes:
            sections.append(Section(name=name, entries=len(sizes), bytes=sum(sizes)))
    return Usage(folder=folder, sections=tuple(sections))


def clear(root: Path | None = None) -> Removal:
    """Remove everything from the cache.

    Raises:
        UserError: Another command of edgekit uses it.
    """
    return _remove(root or get_default_root(), older_than_s=None)


def prune(age: str, root: Path | None = None) -> Removal:
    """Remove entries that were not used for an age such as ``30d``.

    Raises:
        UserError: The age is not valid, or another command of edgekit uses the cache.
    """
    return _remove(root or get_default_root(), older_than_s=parse_age(age))


def parse_age(age: str) -> int:
    """Parse an age such as ``12h`` or ``30d`` into seconds.

    Raises:
        UserError: The text is not an age.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", age)
    if match is None:
        raise UserError(
            f"--prune {age}: not an age",
            hint="give a number and s, m, h, d or w, such as 12h, 30d or 8w",
        )
    return int(match.group(1)) * _UNITS_S[match.group(2)]


def _remove(folder: Path, older_than_s: int | None) -> Removal:
    entries, count = 0, 0
    with lock_exclusively(folder):
        now = time.time()
        for entry in list(_iter_entries(folder)):
            if older_than_s is not None and now - entry.used_at <= older_than_s:
                continue
            _remove_entry(entry.path)
            if not os.path.lexists(entry.path):
                entries, count = entries + 1, count + entry.bytes
    return Removal(entries=entries, bytes=count, left=measure_usage(folder))


def _remove_entry(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the folder holds other entries
        path.parent.rmdir()


def _iter_entries(folder: Path, inner: str = "", depth: int = 1) -> Iterator[_Entry]:
    """Yield the entries of known kinds, sorted by path; links are never followed."""
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        name = f"{inner}{entry.name}"
        section = _find_section(name, entry)
        if section is not None:
            size, used_at = _measure_entry(entry)
            yield _Entry(section, Path(entry.path), size, used_at)
        elif depth < _DEEPEST and entry.is_dir(follow_symlinks=False):
            yield from _iter_entries(Path(entry.path), f"{name}/", depth + 1)


def _find_section(name: str, entry: os.DirEntry[str]) -> str | None:
    for section, pattern in _PATTERNS.items():
        if pattern.fullmatch(name):
            is_ours = section != "runtimes" or _is_agents_home(entry)
            return section if is_ours else None
    return None


def _is_agents_home(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder is the home of the agent that measures on this machine."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    return any(Path(entry.path).glob("agent/edgekit_agent-*.pyz"))


def _measure_entry(entry: os.DirEntry[str]) -> tuple[int, float]:
    """Return the size and the time of last use of an entry, including its content."""
    about = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False):
        return about.st_size, about.st_mtime
    total, used_at = 0, about.st_mtime
    for place, _, names in os.walk(entry.path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another command removed it
                inside = (Path(place) / name).lstat()
                total, used_at = total + inside.st_size, max(used_at, inside.st_mtime)
    return total, used_at
