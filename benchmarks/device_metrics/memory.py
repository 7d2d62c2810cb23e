"""Peak memory of the agent on a device while it runs a job."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Runs on the device until its input ends; prints the largest peak memory of a worker in bytes, and
# that of the process that supervises it.
_WATCHER = """
import os, select, sys
peaks = [0, 0]
while not select.select([0], [], [], 0.3)[0]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open("/proc/%s/cmdline" % pid, "rb").read().split(b"\\0")
            if b"-I" not in words or int(pid) == os.getpid():
                continue
            lines = open("/proc/%s/status" % pid).read().splitlines()
            peak = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            place = 0 if b"worker" in words else 1
            peaks[place] = max(peaks[place], *peak)
        except (OSError, TypeError):
            pass
print(*[1024 * peak for peak in peaks])
"""


@dataclass(kw_only=True)
class Peak:
    """Peak memory in MiB of the processes of a job on a device, known after it."""

    mib: float = float("nan")


@contextmanager
def watch_memory(host: str) -> Iterator[Peak]:
    """Measure the peak memory of the agent and its worker on a device."""
    config = os.environ.get("EDGEKIT_SSH_CONFIG")
    command = ["ssh", *(["-F", config] if config else []), host, f"python3 -c '{_WATCHER}'"]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    peak = Peak()
    try:
        yield peak
    finally:
        found, _ = watcher.communicate("\n")
    peak.mib = sum(map(int, found.split())) / 2**20
