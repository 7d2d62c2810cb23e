"""Unpacking of wheels into a folder to import from, completely or not at all (PEP 427)."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Callable, Iterator, Optional, Sequence

from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, sha256_of
from edgekit_agent.jobs import NamedBlob, RuntimeJob
from edgekit_agent.releases.cleanup import remove_spares
from edgekit_agent.releases.homes import Home, open_home, share
from edgekit_agent.releases.runtime_files import write_listing
from edgekit_agent.releases.store import free_bytes, lock_home, remove, sweep
from edgekit_agent.results import RuntimeResult
from edgekit_agent.wire import Progress

# Errors of ``zipfile`` when a wheel is damaged, or needs a feature that wheels do not use.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class WheelSource:
    """A wheel: its file name, and a function that opens it for reading."""

    name: str
    open: Callable[[], BinaryIO]


def unpack_runtime(job: RuntimeJob, progress: Progress) -> RuntimeResult:
    """Unpack received wheels into ``runtimes/NAME`` and replace an existing folder.

    The host sends only runtimes that do not work, so an existing folder is a damaged one.

    Raises:
        AgentError: ``missing_blob`` or ``corrupt`` (transient) for an object, ``corrupt`` for a
            wheel that is damaged or has paths outside its folder, ``no_space``, ``busy``.
    """
    home = open_home(job.home)
    with lock_home(home):
        sweep(home)
        for wheel in job.wheels:
            _verify_object(home, wheel)
        sources = tuple(
            WheelSource(wheel.name, partial(_open_file, home.object(wheel.digest)))
            for wheel in job.wheels
        )
        return RuntimeResult(unpack_wheels(home, job.name, sources, progress))


def unpack_wheels(home: Home, name: str, wheels: Sequence[WheelSource], progress: Progress) -> str:
    """Unpack wheels into ``runtimes/NAME``, replace an existing folder, and return its path.

    The home of the runtimes must be locked.

    Raises:
        AgentError: ``corrupt`` for a wheel that is damaged or has paths outside its folder,
            ``no_space``.
    """
    target = home.runtime(name)
    _check_space(home, target, wheels)
    staging = home.staging("runtimes")
    os.mkdir(staging)
    try:
        for number, wheel in enumerate(wheels):
            progress("unpack", number, len(wheels))
            _unpack_wheel(wheel, staging)
        write_listing(staging)
        share(home, staging)
        # One flush for all files: thousands of single ones take minutes on an SD card.
        os.sync()
        old = home.staging("runtimes")
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
        os.rename(staging, target)
    except Exception:
        remove(staging)
        raise
    fsync_folder(home.folder("runtimes"))
    remove(old)
    return target


def _open_file(path: str) -> BinaryIO:
    return open(path, "rb")


def count_unpacked_bytes(wheels: Sequence[WheelSource]) -> int:
    """Return the size of all files of wheels, as their listings state it.

    Raises:
        AgentError: ``corrupt``.
    """
    size = 0
    for wheel in wheels:
        with _open_wheel(wheel) as archive:
            size += sum(info.file_size for info in archive.infolist())
    return size


def _verify_object(home: Home, wheel: NamedBlob) -> None:
    path = home.object(wheel.digest)
    if not os.path.isfile(path):
        raise AgentError(
            "missing_blob",
            f"{wheel.name} has not been received",
            hint="push again",
            transient=True,
        )
    if sha256_of(path) != wheel.digest:
        os.unlink(path)
        raise AgentError(
            "corrupt",
            f"{wheel.name} was damaged on the device's disk",
            hint="push again; if this happens again, the storage is failing",
            transient=True,
        )


def _check_space(home: Home, target: str, wheels: Sequence[WheelSource]) -> None:
    needed_bytes = count_unpacked_bytes(wheels)
    if needed_bytes > free_bytes(home):
        remove_spares(home, target)
    missing = needed_bytes - free_bytes(home)
    if missing > 0:
        raise AgentError(
            "no_space",
            f"{home.path}: {missing / 2**20:.1f} MiB of disk space missing",
            hint=f"free some space: unpacking the runtime needs {needed_bytes / 2**20:.1f} MiB",
        )


@contextlib.contextmanager
def _open_wheel(wheel: WheelSource) -> Iterator[zipfile.ZipFile]:
    with wheel.open() as file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise AgentError("corrupt", f"{wheel.name}: not a wheel: {error}") from error
        with archive:
            yield archive


def _unpack_wheel(wheel: WheelSource, folder: str) -> None:
    with _open_wheel(wheel) as archive:
        for info in archive.infolist():
            member_path = _get_member_path(info.filename)
            if member_path is None or info.is_dir():
                continue
            if _is_outside(member_path):
                what = f"the path {info.filename!r} is outside it"
                raise AgentError("corrupt", f"{wheel.name}: {what}")
            target = os.path.join(folder, member_path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                with archive.open(info) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
            except _DAMAGE as error:
                raise AgentError("corrupt", f"{wheel.name}: {error}") from error


def _get_member_path(name: str) -> Optional[str]:
    """Return the path of a wheel's member below the folder; ``None`` if no import needs it.

    That is so for scripts, headers and data.
    """
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    scheme, _, inner = rest.partition("/")
    return inner if scheme in ("purelib", "platlib") and inner else None


def _is_outside(path: str) -> bool:
    parts = path.split("/")
    return os.path.isabs(path) or ".." in parts or "\\" in path or "\0" in path
