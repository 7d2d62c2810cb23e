"""The Python on a device: its wheel tags (PEP 425, 600) and marker environment (PEP 508)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags

from edgekit.errors import DeviceError
from edgekit_agent.measure import cpu
from edgekit_agent.results import DeviceFacts

# The minor version of the oldest glibc that wheels are built for: PEP 600, and PEP 513 for x86.
_OLDEST_MINOR = {"x86_64": 5, "i686": 5}
_OLDEST_MINOR_ELSEWHERE = 17
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, kw_only=True)
class DevicePython:
    """A CPython on Linux with glibc; ``arch`` is the architecture of its userland."""

    version: str
    arch: str
    glibc: tuple[int, int]
    kernel: str

    @property
    def minor(self) -> tuple[int, int]:
        """Return major and minor version, such as (3, 11)."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def interpreter(self) -> str:
        """Return the interpreter tag of wheels, such as cp311."""
        return "cp{}{}".format(*self.minor)

    def platforms(self) -> tuple[str, ...]:
        """Return the platform tags of wheels, the newest glibc first."""
        return tuple(self._iter_platforms())

    def _iter_platforms(self) -> Iterator[str]:
        major, newest = self.glibc
        for minor in range(newest, _OLDEST_MINOR.get(self.arch, _OLDEST_MINOR_ELSEWHERE) - 1, -1):
            yield f"manylinux_{major}_{minor}_{self.arch}"
            if minor in _LEGACY and (minor == 17 or self.arch in _OLDEST_MINOR):
                yield f"{_LEGACY[minor]}_{self.arch}"
        yield f"linux_{self.arch}"

    def tags(self) -> frozenset[Tag]:
        """Return all tags of wheels that can be installed on the device."""
        platforms = self.platforms()
        exact = cpython_tags(self.minor, [self.interpreter], platforms)
        return frozenset(exact) | frozenset(
            compatible_tags(self.minor, self.interpreter, [*platforms, "any"])
        )

    def markers(self) -> dict[str, str]:
        """Return the environment in which PEP 508 markers are evaluated for the device."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.version,
            "os_name": "posix",
            "platform_machine": self.arch,
            "platform_python_implementation": "CPython",
            "platform_release": self.kernel,
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.version,
            "python_version": ".".join(map(str, self.minor)),
            "sys_platform": "linux",
        }


def userland(facts: DeviceFacts) -> str:
    """Return the architecture of a device's programs: a 64-bit kernel may run a 32-bit userland."""
    return cpu.userland(facts.machine, facts.pointer_bits)


def read_device_python(host: str, facts: DeviceFacts) -> DevicePython:
    """Read the Python of a device from the facts that it reported.

    Raises:
        DeviceError: no runtime is built for the device's libc.
    """
    match = re.fullmatch(r"glibc ([0-9]{1,2})\.([0-9]{1,2})(\D.*)?", facts.libc)
    if match is None:
        raise DeviceError(
            f"{host}: no runtime is built for its libc ({facts.libc or 'unknown'})",
            hint="the runtimes' wheels need glibc; use a Debian-like system, or install a runtime "
            "on the device yourself",
        )
    return DevicePython(
        version=facts.python,
        arch=userland(facts),
        glibc=(int(match.group(1)), int(match.group(2))),
        kernel=facts.kernel,
    )
