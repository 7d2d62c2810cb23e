"""Headless Chromium on this machine: find it, start it on a page, measure its memory, end it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DeviceError
from edgekit_agent.measure.memory import read_memory_fields

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
)
_END_S = 10.0


def find_chromium() -> str:
    """Return the path of Chromium: ``EDGEKIT_CHROMIUM``, or the first one on PATH.

    Raises:
        DeviceError: There is none.
    """
    own = os.environ.get("EDGEKIT_CHROMIUM")
    found = shutil.which(own) if own else next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        wanted = f"EDGEKIT_CHROMIUM={own}: no such program" if own else "no Chromium on PATH"
        raise DeviceError(
            f"web: {wanted}",
            hint="install it (Debian: apt install chromium), or name it in EDGEKIT_CHROMIUM; an "
            "ssh alias 'web' is written ssh:web",
        )
    return found


@dataclass(frozen=True)
class Browser:
    """A running Chromium with a session of processes of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def has_ended(self) -> bool:
        """Return whether the browser has ended."""
        return self.process.poll() is not None

    def read_last_words(self) -> str:
        """Return the last line that the browser logged; empty if there is none."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def measure_peak_bytes(self) -> int:
        """Return the peak memory of the largest process that renders pages; 0 if unknown."""
        peaks = [
            read_memory_fields(str(folder / "status")).get("VmHWM", 0)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and _is_renderer(folder, self.process.pid)
        ]
        return max(peaks, default=0)


@contextlib.contextmanager
def start_chromium(address: str) -> Iterator[Browser]:
    """Start Chromium on a page, with a profile folder of its own that is removed at the end.

    Raises:
        DeviceError: Chromium is missing or does not start.
    """
    program = find_chromium()
    # The user's data must not be touched, and root can only start it without its sandbox; the
    # only page is edgekit's own.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(_FLAGS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        command = [program, *flags, f"--user-data-dir={folder}/profile", address]
        with log.open("wb") as errors:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise DeviceError(f"web: cannot start {program}: {error}") from error
        try:
            yield Browser(process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes of the browser, which are one process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _is_renderer(folder: Path, session: int) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The fields after the name of the program, which may hold spaces.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return int(fields[3]) == session and b"--type=renderer" in (folder / "cmdline").read_bytes()
    return False
