"""Memory of this process and of this device, in bytes."""

from __future__ import annotations

import resource
from typing import Dict, Iterator, Optional, Tuple

from edgekit_agent.measure.sysfs import read_int, read_text

# In cgroup v1, "no limit" is a number just below 2**63.
_NO_LIMIT = 1 << 60


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process.

    VmHWM starts at zero with the program, while ru_maxrss includes the peak of the process before
    it became this program (Linux, getrusage(2)).
    """
    peak = read_memory_fields("/proc/self/status").get("VmHWM")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def rss_bytes() -> int:
    """Return the resident memory of this process; its peak where the kernel does not report it."""
    now = read_memory_fields("/proc/self/status").get("VmRSS")
    return now if now is not None else peak_rss_bytes()


def total_bytes(root: str = "/") -> Optional[int]:
    """Return the device's memory, or the control group's limit where that is lower."""
    total = read_memory_fields(f"{root}proc/meminfo").get("MemTotal")
    limits = [limit for limit, _ in _iter_cgroup_limits(root)]
    return min([v for v in (total, *limits) if v is not None], default=None)


def available_bytes(root: str = "/") -> Optional[int]:
    """Return the memory that can be used without swapping, within the control group's limit."""
    free = read_memory_fields(f"{root}proc/meminfo").get("MemAvailable")
    rooms = [max(0, limit - used) for limit, used in _iter_cgroup_limits(root)]
    return min([v for v in (free, *rooms) if v is not None], default=None)


def free_swap_bytes(root: str = "/") -> int:
    """Return the free swap space."""
    return read_memory_fields(f"{root}proc/meminfo").get("SwapFree", 0)


def read_memory_fields(path: str) -> Dict[str, int]:
    """Read the ``Name:  123 kB`` lines of a file of /proc, in bytes."""
    fields = {}
    for line in (read_text(path) or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            fields[name] = int(words[0]) << 10
    return fields


def _iter_cgroup_limits(root: str) -> Iterator[Tuple[int, int]]:
    """Yield limit and usage of every control group of this process, and of the groups above."""
    for line in (read_text(f"{root}proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit_name, used_name = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit_name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            used_name = "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            folder = "/".join([f"{root}{base}", *parts[:depth]])
            limit = read_int(f"{folder}/{limit_name}")
            if limit is not None and limit < _NO_LIMIT:
                yield limit, read_int(f"{folder}/{used_name}") or 0
