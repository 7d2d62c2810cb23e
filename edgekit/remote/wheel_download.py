"""Download of wheels for a device's Python, with all that they require, through pip on the host."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgekit.errors import DeviceError
from edgekit.remote.pip_command import find_pip
from edgekit.remote.python_tags import DevicePython
from edgekit.remote.wheel_resolver import read_wheel, resolve

# Rounds of download: pip evaluates the host's markers, so it may leave out requirements. Without
# pip's own resolution, each round adds one level of requirements.
ROUNDS, ROUNDS_WITHOUT_DEPS = 4, 16
_ABSENT = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")


@dataclass(frozen=True, kw_only=True)
class WheelRequest:
    """Requirements to download, the runtime first.

    Attributes:
        requirements: requirements of PEP 508.
        provided: normalized names of packages that the device must have.
        leaves: normalized names of packages that need nothing but the named requirements; the rest
            of their metadata concerns parts that are never imported.
    """

    requirements: tuple[str, ...]
    provided: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()


def download_closure(
    wanted: WheelRequest,
    python: DevicePython,
    scratch: Path,
    *,
    known: Path,
    pins: Sequence[str] = (),
    offline: bool = False,
) -> list[Path]:
    """Download wheels whose requirements are met on the device; that of the first one comes first.

    Args:
        wanted: the requirements.
        python: the device's Python.
        scratch: an empty folder for the downloads.
        known: a folder of wheels that pip may take besides those of the index.
        pins: versions that were chosen before.
        offline: take wheels from the folder alone.

    Raises:
        DeviceError: there are no such wheels, or they cannot be downloaded.
        PipMissing: there is no pip.
    """
    asked = (*wanted.requirements, *pins)
    is_flat = bool(wanted.provided or wanted.leaves)
    sources = ("--find-links", str(known), *(["--no-index"] if offline else []))
    for turn in range(ROUNDS_WITHOUT_DEPS if is_flat else ROUNDS):
        folder = scratch / str(turn)
        _download(asked, python, folder, sources, is_flat=is_flat)
        wheels = [read_wheel(path, python) for path in sorted(folder.glob("*.whl"))]
        needed, missing = resolve(
            wanted.requirements, wheels, python, wanted.provided, leaves=wanted.leaves
        )
        if not missing:
            root = canonicalize_name(Requirement(wanted.requirements[0]).name)
            return [w.path for w in sorted(needed, key=lambda w: w.name != root)]
        asked = (*asked, *missing)
    raise DeviceError(
        f"the wheels of {wanted.requirements[0]} lack {', '.join(missing)} for "
        f"Python {python.version} on {python.arch}"
    )


def _download(
    requirements: Sequence[str],
    python: DevicePython,
    folder: Path,
    sources: Sequence[str],
    *,
    is_flat: bool,
) -> None:
    target = ["--python-version", ".".join(map(str, python.minor)), "--implementation", "cp"]
    for abi in (python.interpreter, "abi3", "none"):
        target += ["--abi", abi]
    for platform in python.platforms():
        target += ["--platform", platform]
    options = [*sources, *(["--no-deps"] if is_flat else []), "--dest", str(folder)]
    done = _run_pip("download", "--quiet", "--only-binary=:all:", *options, *target, *requirements)
    if done.returncode:
        raise _make_pip_error(
            requirements[0], python, sources, done.stderr.decode(errors="replace")
        )


def _run_pip(command: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    words = [*find_pip(), command, "--no-input", "--disable-pip-version-check"]
    return subprocess.run(
        [*words, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def _make_pip_error(
    requirement: str, python: DevicePython, sources: Sequence[str], stderr: str
) -> DeviceError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no error message"]
    where = f"Python {python.version} on {python.arch} (glibc {'.'.join(map(str, python.glibc))})"
    absent = _ABSENT.search(errors[-1])
    if absent is not None and (found := _find_source(absent.group(1), sources)):
        return DeviceError(
            f"{absent.group(1)} has no wheel for {where}, only a source distribution ({found})",
            hint="a device has no compiler; choose a version that has a wheel, or build the wheel "
            "for the device yourself",
        )
    return DeviceError(
        f"cannot fetch {requirement} for {where}: pip: {errors[-1].removeprefix('ERROR: ')}",
        hint="push once from a machine with network access, or install the runtime on the device",
        transient=any("Retrying" in line for line in lines),
    )


def _find_source(name: str, sources: Sequence[str]) -> str:
    """Return name and version of the newest source distribution of a package; empty if none."""
    done = _run_pip("index", "versions", *sources, "--no-binary", name, name)
    return done.stdout.decode(errors="replace").partition("\n")[0] if not done.returncode else ""
