"""Wheels of an app: chosen for its platform, and held to the versions and digests of its lock."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import (
    InvalidWheelFilename,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import Version

from edgekit.errors import DeviceError, UserError
from edgekit.packaging.lock_file import LOCK_FILE, LockedWheel
from edgekit.packaging.requirements import get_names
from edgekit.packaging.target_platform import TargetPlatform
from edgekit.remote.python_tags import DevicePython
from edgekit.remote.session import Progress
from edgekit.remote.wheel_download import WheelRequest, download_closure
from edgekit.remote.wheels import fetch_wheels
from edgekit_agent.files import sha256_of

_HINT = "without a network: collect the wheels elsewhere (edgekit fetch), then give --wheels DIR"


@dataclass(frozen=True, kw_only=True)
class Wheels:
    """The wheels of an app.

    Attributes:
        files: Path and facts of each wheel, sorted by name.
        provided: Names of packages that the device itself must have.
        is_locked: Whether the lock held all of them already.
    """

    files: tuple[tuple[Path, LockedWheel], ...]
    provided: tuple[str, ...]
    is_locked: bool

    @property
    def entries(self) -> tuple[LockedWheel, ...]:
        """Return the facts of the wheels."""
        return tuple(wheel for _, wheel in self.files)


@dataclass(frozen=True, kw_only=True)
class WheelSource:
    """The place that wheels are taken from.

    Attributes:
        cache: Folder of downloaded wheels.
        folder: Folder that holds all wheels, used without a network; ``None`` = pip downloads them.
        progress: Called with the package that is downloaded.
    """

    cache: Path
    folder: Path | None = None
    progress: Progress | None = None

    def fetch(self, request: WheelRequest, python: DevicePython) -> tuple[tuple[Path, str], ...]:
        """Return the path and the sha256 of each wheel of a request.

        Raises:
            DeviceError: There are no such wheels.
        """
        if self.folder is None:
            return fetch_wheels(request, python, cache=self.cache, progress=self.progress)
        if not self.folder.is_dir():
            raise UserError(f"--wheels: {self.folder}: no such folder")
        with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            chosen = download_closure(
                request, python, Path(scratch), known=self.folder.absolute(), offline=True
            )
            names = [path.name for path in chosen]
        return tuple((self.folder / n, sha256_of(str(self.folder / n))) for n in names)


def collect_wheels(
    requests: Sequence[WheelRequest],
    platform: TargetPlatform,
    source: WheelSource,
    *,
    lock: Sequence[LockedWheel] = (),
    must_be_locked: bool = False,
) -> Wheels:
    """Return the wheels of an app, of the versions in its lock if they meet a request.

    Args:
        requests: Possible sets of requirements, the preferred one first.
        platform: The platform of the device.
        source: Where the wheels are taken from.
        lock: The wheels that are locked for the platform.
        must_be_locked: Refuse wheels that are not locked.

    Raises:
        UserError: There are no such wheels, one is older than the locked one or differs from it, or
            the lock lacks one that must be locked.
    """
    if source.folder is not None:
        _check_folder(source.folder, lock, platform.python)
    held = next((r for r in requests if lock and _meets(lock, r)), None)
    if held is not None and _are_present(source.folder, lock):
        names = get_names(held)
        pins = sorted(lock, key=lambda w: w.name not in names)
        pinned = replace(held, requirements=tuple(f"{w.name}=={w.version}" for w in pins))
        found = _fetch([pinned], platform, source)
    elif must_be_locked:
        raise UserError(
            f"--locked: {LOCK_FILE} does not hold the wheels for {platform.label}",
            hint="package once without --locked, and keep the file that is written",
        )
    else:
        found = _fetch([_bound(request, lock) for request in requests], platform, source)
    _check_locked(found.entries, lock, must_be_locked=must_be_locked)
    return replace(found, is_locked=set(found.entries) == set(lock))


def _fetch(
    requests: Sequence[WheelRequest], platform: TargetPlatform, source: WheelSource
) -> Wheels:
    """Fetch the wheels of the first request that can be met."""
    failure: DeviceError | None = None
    for request in requests:
        try:
            files = source.fetch(request, platform.python)
        except DeviceError as error:
            failure = failure or error
            continue
        described = [(path, _describe(path, digest)) for path, digest in files]
        return Wheels(
            files=tuple(sorted(described, key=lambda each: each[1].name)),
            provided=tuple(sorted(request.provided)),
            is_locked=False,
        )
    said = failure.message if failure else f"no wheels for {platform.describe()}"
    is_source = failure is not None and "source distribution" in failure.message
    where = "" if source.folder is None else f"{source.folder}: "
    raise UserError(f"{where}{said}", hint=failure.hint if failure and is_source else _HINT)


def _describe(path: Path, digest: str) -> LockedWheel:
    name, version, _, _ = parse_wheel_filename(path.name)
    return LockedWheel(name=name, version=str(version), file=path.name, sha256=digest)


def _meets(lock: Sequence[LockedWheel], request: WheelRequest) -> bool:
    """Return whether locked wheels meet the named requirements of a request."""
    versions = {wheel.name: wheel.version for wheel in lock}
    parsed = [Requirement(r) for r in request.requirements]
    return all(
        (version := versions.get(canonicalize_name(r.name))) is not None
        and r.specifier.contains(version, prereleases=True)
        for r in parsed
    )


def _bound(request: WheelRequest, lock: Sequence[LockedWheel]) -> WheelRequest:
    """Add to a request that no named package may be older than the locked one."""
    names = get_names(request)
    least = [f"{wheel.name}>={wheel.version}" for wheel in lock if wheel.name in names]
    return replace(request, requirements=(*request.requirements, *least))


def _are_present(folder: Path | None, lock: Sequence[LockedWheel]) -> bool:
    """Return whether all locked wheels are in a folder, if wheels are taken from one."""
    return folder is None or all((folder / wheel.file).is_file() for wheel in lock)


def _check_folder(folder: Path, lock: Sequence[LockedWheel], python: DevicePython) -> None:
    """Check that a folder holds no older wheels than the locked ones.

    Raises:
        UserError: It does.
    """
    held = _read_versions(folder, python)
    for wheel in lock:
        versions = held.get(wheel.name, [])
        if versions and max(versions) < Version(wheel.version):
            raise _make_age_error(wheel, str(max(versions)), where=f"{folder}: ")


def _read_versions(folder: Path, python: DevicePython) -> dict[str, list[Version]]:
    """Return the versions of the wheels in a folder that run on a Python, by name."""
    tags, found = python.tags(), dict[str, list[Version]]()
    for path in folder.glob("*.whl"):
        try:
            name, version, _, own = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if own & tags:
            found.setdefault(name, []).append(version)
    return found


def _check_locked(
    wheels: Sequence[LockedWheel], lock: Sequence[LockedWheel], *, must_be_locked: bool
) -> None:
    held = {wheel.name: wheel for wheel in lock}
    for wheel in wheels:
        locked = held.get(wheel.name)
        if locked is None:
            continue
        if Version(wheel.version) < Version(locked.version):
            raise _make_age_error(locked, wheel.version)
        if wheel.version == locked.version and wheel.sha256 != locked.sha256:
            raise UserError(
                f"{wheel.file}: its sha256 is {wheel.sha256[:16]}..., that of {locked.file} in "
                f"{LOCK_FILE} is {locked.sha256[:16]}...",
                hint="the file was changed; take the original one, or delete its entry in the "
                "lock to accept this one",
            )
    if must_be_locked and set(wheels) != set(lock):
        names = sorted({w.name for w in set(wheels) ^ set(lock)})
        raise UserError(
            f"--locked: {LOCK_FILE} holds other wheels: {', '.join(names)}",
            hint="package once without --locked, and keep the file that is written",
        )


def _make_age_error(locked: LockedWheel, version: str, *, where: str = "") -> UserError:
    return UserError(
        f"{where}{locked.name} {version} is older than the locked version {locked.version}",
        hint=f"take the locked version, or delete its entry in {LOCK_FILE}",
    )
