"""Platform that a package is for: architecture, Python and glibc of the device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.config.profile import DeviceProfile
from edgekit.errors import UserError
from edgekit.remote.python_tags import DevicePython

# Debian 12, the base of Raspberry Pi OS 12 too.
DEFAULT_PYTHON, DEFAULT_GLIBC = "3.11", "2.36"
_OLDEST_PYTHON = (3, 9)
_NUMBERS = re.compile(r"([0-9]{1,2})\.([0-9]{1,3})")


@dataclass(frozen=True, kw_only=True)
class TargetPlatform:
    """Architecture, Python and glibc of a device, with a note on each value that was assumed."""

    python: DevicePython
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return the name of the platform in lock files, such as ``cp311-x86_64-glibc2.36``."""
        python = self.python
        return f"{python.interpreter}-{python.arch}-glibc{format_version(python.glibc)}"

    def describe(self) -> str:
        """Return the platform in words."""
        python = self.python
        return describe_platform(python.arch, python.minor, python.glibc)


def choose_platform(
    profiles: Sequence[DeviceProfile], python: str | None, glibc: str | None
) -> TargetPlatform:
    """Return the platform of the profiles, with Python and glibc of the caller or of Debian 12.

    Args:
        profiles: Profiles of the bundles, or the one that the caller names.
        python: Version of the device's Python, such as ``3.11``.
        glibc: Oldest version of glibc that the package is to run on, such as ``2.36``.

    Raises:
        UserError: The profiles differ in their architecture, or a version is wrong.
    """
    arches = {profile.hardware.arch: profile.name for profile in profiles}
    if len(arches) > 1:
        said = ", ".join(f"{name} is for {arch}" for arch, name in arches.items())
        raise UserError(
            f"the bundles are for different devices: {said}",
            hint="build all of them for the profile of one device",
        )
    notes = []
    if python is None and glibc is None:
        notes.append(
            f"assumed Debian 12 on the device: Python {DEFAULT_PYTHON}, glibc {DEFAULT_GLIBC} "
            "(others: --python, --glibc)"
        )
    elif python is None:
        notes.append(f"assumed Python {DEFAULT_PYTHON} on the device (others: --python)")
    elif glibc is None:
        notes.append(f"assumed glibc {DEFAULT_GLIBC} on the device (others: --glibc)")
    minor = _parse_numbers("--python", python or DEFAULT_PYTHON)
    if minor < _OLDEST_PYTHON or minor[0] > 3:
        raise UserError(
            f"--python: {python} is not supported", hint="Python 3.9 or newer is needed"
        )
    return TargetPlatform(
        python=DevicePython(
            version=f"{format_version(minor)}.0",
            arch=next(iter(arches)),
            glibc=_parse_numbers("--glibc", glibc or DEFAULT_GLIBC),
            kernel="",
        ),
        notes=tuple(notes),
    )


def describe_platform(arch: str, python: Sequence[int], glibc: Sequence[int]) -> str:
    """Return an architecture, a version of Python and the oldest one of glibc in words."""
    return f"{arch}, Python {format_version(python)}, glibc {format_version(glibc)} or newer"


def format_version(numbers: Sequence[int]) -> str:
    """Return a version as text, such as ``3.11``."""
    return ".".join(map(str, numbers))


def _parse_numbers(option: str, text: str) -> tuple[int, int]:
    match = _NUMBERS.fullmatch(text)
    if match is None:
        raise UserError(f"{option}: {text!r} is not a version such as 3.11")
    return int(match.group(1)), int(match.group(2))
