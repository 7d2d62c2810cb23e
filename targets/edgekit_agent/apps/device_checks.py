"""Checks that a device can run a package; nothing is changed."""

from __future__ import annotations

import platform
import re
import struct
import sys
from typing import Optional, Tuple

from edgekit_agent.apps.package_format import Package
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.cpu import userland
from edgekit_agent.measure.probe import find_libc
from edgekit_agent.releases.homes import Home
from edgekit_agent.releases.store import free_bytes, is_noexec

_SPARE_BYTES = 16 << 20


def check_device(package: Package, home: Home, needed_bytes: int) -> None:
    """Check the architecture, Python, the C library and the disk.

    Args:
        package: the package.
        home: the folder of edgekit in which it is installed.
        needed_bytes: bytes that will be written there.

    Raises:
        AgentError: ``unsuitable``: this is not the device that the package was made for;
            ``noexec`` or ``no_space``.
    """
    arch = userland(platform.machine(), struct.calcsize("P") * 8)
    if arch != package.arch:
        raise _make_refusal(package, f"{package.arch}; the programs of this device are for {arch}")
    if sys.version_info[:2] != package.python:
        wanted = ".".join(map(str, package.python))
        found = platform.python_version()
        raise _make_refusal(package, f"Python {wanted}; this is Python {found}")
    _check_libc(package)
    if package.wheels and is_noexec(home):
        raise AgentError(
            "noexec",
            f"{home.path} is on a file system from which no program may run (noexec)",
            hint="choose another folder: --prefix",
        )
    missing = needed_bytes + _SPARE_BYTES - free_bytes(home)
    if missing > 0:
        raise AgentError(
            "no_space",
            f"{home.path}: {missing / 2**20:.0f} MiB of disk space missing",
            hint=f"the installation needs {(needed_bytes + _SPARE_BYTES) / 2**20:.0f} MiB",
        )


def _check_libc(package: Package) -> None:
    libc = find_libc()
    found = _parse_glibc(libc)
    if found is None or found < package.glibc:
        wanted = ".".join(map(str, package.glibc))
        raise _make_refusal(package, f"glibc {wanted} or newer; this device has {libc or 'none'}")


def _parse_glibc(libc: str) -> Optional[Tuple[int, int]]:
    match = re.fullmatch(r"glibc (\d+)\.(\d+).*", libc)
    return (int(match.group(1)), int(match.group(2))) if match else None


def _make_refusal(package: Package, need: str) -> AgentError:
    return AgentError("unsuitable", f"{package.name} {package.version} needs {need}")
