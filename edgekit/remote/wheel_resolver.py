"""Resolution of wheel requirements for a device, by the device's own markers.

``pip download`` evaluates the markers of PEP 508 in the environment of the host.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from edgekit.errors import DeviceError
from edgekit.remote.python_tags import DevicePython


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel file and the requirements in its metadata."""

    path: Path
    name: str
    version: Version
    requires: tuple[Requirement, ...]


def read_wheel(path: Path, python: DevicePython) -> Wheel:
    """Read name, version and requirements of a wheel, and check that it runs on a Python.

    Raises:
        DeviceError: the wheel is damaged, or was built for another platform.
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inner = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            metadata = Parser().parsestr(archive.read(inner).decode())
        requires = tuple(Requirement(r) for r in metadata.get_all("Requires-Dist", []))
    except (InvalidWheelFilename, InvalidRequirement, zipfile.BadZipFile, StopIteration) as error:
        raise DeviceError(
            f"{path}: not a wheel: {error}", hint="delete it and try again"
        ) from error
    if not tags & python.tags():
        raise DeviceError(
            f"the wheel {path.name} does not run on Python {python.version} for {python.arch} "
            f"with glibc {'.'.join(map(str, python.glibc))}"
        )
    return Wheel(path=path, name=name, version=version, requires=requires)


def resolve(
    roots: Sequence[str],
    wheels: Iterable[Wheel],
    python: DevicePython,
    provided: frozenset[str],
    *,
    leaves: frozenset[str] = frozenset(),
) -> tuple[tuple[Wheel, ...], tuple[str, ...]]:
    """Resolve requirements recursively with the given wheels, as pip would on the device.

    Args:
        roots: the requirements to start from.
        wheels: the available wheels.
        python: the device's Python, which decides which markers hold.
        provided: normalized names of packages that are already on the device.
        leaves: normalized names of packages of whose requirements only the roots count.

    Returns:
        The wheels that are needed, sorted by name, and the requirements that no wheel meets.
    """
    by_name = {w.name: w for w in wheels}
    needed: dict[str, Wheel] = {}
    missing: dict[str, None] = {}
    todo = [Requirement(r) for r in roots]
    root_names = {canonicalize_name(r.name) for r in todo}
    seen: set[str] = set()
    while todo:
        asked = todo.pop()
        name = canonicalize_name(asked.name)
        if str(asked) in seen or name in provided:
            continue
        seen.add(str(asked))
        wheel = by_name.get(name)
        if wheel is None or not asked.specifier.contains(wheel.version, prereleases=True):
            extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
            missing[f"{asked.name}{extras}{asked.specifier}"] = None
            continue
        needed[name] = wheel
        counted = [
            r
            for r in wheel.requires
            if name not in leaves or canonicalize_name(r.name) in root_names
        ]
        todo += [r for r in counted if _is_required(r, asked.extras, python)]
    return tuple(needed[n] for n in sorted(needed)), tuple(missing)


def _is_required(requirement: Requirement, extras: set[str], python: DevicePython) -> bool:
    if requirement.marker is None:
        return True
    environment = python.markers()
    return any(requirement.marker.evaluate({**environment, "extra": e}) for e in {"", *extras})
