"""Wheels for a device in one folder, for machines that package without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.config.profile import DeviceProfile
from edgekit.errors import DeviceError, UserError
from edgekit.packaging.lock_file import LockedWheel
from edgekit.packaging.locked_wheels import WheelSource, collect_wheels
from edgekit.packaging.requirements import LEAVES, READERS
from edgekit.packaging.target_platform import choose_platform
from edgekit.progress import Tick, make_agent_callback
from edgekit.remote.wheels import NUMPY_ARCHES, list_candidates
from edgekit_agent.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """Wheels that were collected.

    Attributes:
        folder: The folder that holds them.
        platform: Platform that they are for, in words.
        wheels: The wheels.
        notes: Remarks for the user.
    """

    folder: Path
    platform: str
    wheels: tuple[LockedWheel, ...]
    notes: tuple[str, ...]


def fetch_for_profile(
    profile: DeviceProfile,
    folder: Path,
    *,
    python: str | None,
    glibc: str | None,
    requires: Sequence[str],
    cache: Path,
    tick: Tick,
) -> FetchReport:
    """Collect the wheels of a device's runtimes, and of the readers of images and texts.

    Args:
        profile: Profile of the device.
        folder: The folder to fill; other files in it stay.
        python: Version of the device's Python.
        glibc: Oldest version of the device's glibc.
        requires: Further requirements of apps.
        cache: Folder of downloaded wheels.
        tick: Called with a stage, the amount done and the total.

    Raises:
        UserError: No runtime of the profile has wheels for the device, or a wheel is missing.
    """
    platform = choose_platform([profile], python, glibc)
    source = WheelSource(cache=cache, progress=make_agent_callback(tick))
    notes = list(platform.notes)
    readers = sorted(READERS.values()) if platform.python.arch in NUMPY_ARCHES else []
    found: dict[str, tuple[Path, LockedWheel]] = {}
    failure: DeviceError | UserError | None = None
    for runtime, spec in profile.runtimes.items():
        try:
            requests = [
                replace(r, requirements=(*r.requirements, *readers, *requires), leaves=LEAVES)
                for r in list_candidates(runtime, spec, platform.python, "")
            ]
            wheels = collect_wheels(requests, platform, source)
        except (DeviceError, UserError) as error:
            failure = error
            notes.append(f"{runtime}: {error.message}")
            continue
        found |= {wheel.file: (path, wheel) for path, wheel in wheels.files}
    if not found and failure is not None:
        raise UserError(failure.message, hint=failure.hint)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (path, _)) in enumerate(sorted(found.items())):
        tick(f"copying to {folder}", number, len(found))
        write_atomic(str(folder / name), path.read_bytes())
    return FetchReport(
        folder=folder,
        platform=platform.describe(),
        wheels=tuple(wheel for _, (_, wheel) in sorted(found.items())),
        notes=tuple(notes),
    )
