"""Small files of /proc and /sys, any of which a device may lack."""

from __future__ import annotations

from typing import Optional


def read_text(path: str) -> Optional[str]:
    """Read a text file and strip white space around it; ``None`` if it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: str) -> Optional[int]:
    """Read the one integer in a file; ``None`` if it can't be read or holds something else."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None
