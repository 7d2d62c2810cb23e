"""Messages to systemd: the server is ready, it is alive (sd_notify)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Optional


def tell_systemd(text: str) -> bool:
    """Send a message such as ``READY=1``; return whether systemd listens to this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(name)
            sender.sendall(text.encode())
        return True
    return False


def get_watchdog_s() -> Optional[float]:
    """Return the longest time between two signs of life; ``None`` if systemd wants none."""
    pid, period = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not period.isdigit() or pid not in ("", str(os.getpid())):
        return None
    return int(period) / 1e6 or None
