"""Names of hosts that do not mean an SSH host."""

from __future__ import annotations

from edgekit.errors import DeviceError

# This machine, without SSH.
LOCAL = "local"
# Headless Chromium on this machine, which has no session.
WEB = "web"
# Marks an ssh alias that has a reserved name.
_SSH = "ssh:"


def get_ssh_argument(host: str) -> str:
    """Return the argument of ``ssh`` for a host: the name after ``ssh:``, if that is there.

    Raises:
        DeviceError: The host is a browser.
    """
    if host == WEB:
        raise DeviceError(
            f"{WEB}: a browser on this machine can only be measured (bench, build --on)",
            hint=f"write {_SSH}{WEB} for an ssh alias of that name",
        )
    is_marked = host.startswith(_SSH) and not host.startswith(f"{_SSH}//")
    return host.removeprefix(_SSH) if is_marked else host
