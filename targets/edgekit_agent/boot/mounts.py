"""File systems that are kept in memory, or from which no program may run."""

from __future__ import annotations

import os
from typing import Dict, Tuple

_IN_MEMORY = ("tmpfs", "ramfs")
_MOUNTS = "/proc/self/mountinfo"


def find_nearest_folder(path: str) -> str:
    """Find a folder, or the nearest existing one above it."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def forbids_programs(path: str) -> bool:
    """Return whether no program and no library runs from a path (``noexec``)."""
    return bool(os.statvfs(find_nearest_folder(path)).f_flag & getattr(os, "ST_NOEXEC", 0))


def is_in_memory(path: str) -> bool:
    """Return whether a path, or the nearest folder above it, lies in memory only.

    An overlay whose changes are kept in memory counts too, as on boards with a read-only root.
    """
    filesystem, options = _read_mounts().get(_find_device(path), ("", {}))
    upper = options.get("upperdir", "")
    if (
        filesystem == "overlay"
        and os.path.isdir(upper)
        and _find_device(upper) != _find_device(path)
    ):
        return is_in_memory(upper)
    return filesystem in _IN_MEMORY


def _find_device(path: str) -> str:
    number = os.stat(find_nearest_folder(path)).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _read_mounts() -> Dict[str, Tuple[str, Dict[str, str]]]:
    """Read type and options of every mounted file system, by its device number."""
    mounts: Dict[str, Tuple[str, Dict[str, str]]] = {}
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return mounts
    for line in lines:
        mounted, _, system = line.partition(" - ")
        filesystem, _, rest = system.partition(" ")
        pairs = (option.partition("=") for option in rest.split(" ")[-1].split(","))
        mounts[mounted.split(" ")[2]] = (filesystem, {name: value for name, _, value in pairs})
    return mounts
