"""Checks and conversions of arguments that several functions of the API share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from edgekit.config.profile import DeviceProfile, RuntimeName, load_profile
from edgekit.config.project import Metric, load_project
from edgekit.errors import ArgumentError, UserError, did_you_mean
from edgekit.remote.home import Home, profile_home

AnyPath = str | os.PathLike[str]
# A device profile: its name, the path of a .toml file, or the profile itself.
Device = AnyPath | DeviceProfile

METRICS: tuple[str, ...] = get_args(Metric)
RUNTIMES: tuple[str, ...] = (*get_args(RuntimeName), "auto")
# Largest size of a dimension in every runtime.
_LARGEST = (1 << 31) - 1


def resolve_folder(folder: AnyPath) -> Path:
    """Return the project folder: absolute, unless it is the current one.

    So a path of a result, such as the folder of a build, can be an argument of the next call.

    Raises:
        UserError: There is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    return path if path == Path() else path.absolute()


def resolve_data(data: AnyPath | None) -> str | None:
    """Return a source of samples as text; it is a path or ``module:function``."""
    return None if data is None else os.fspath(data)


def resolve_device(folder: Path, device: Device | None) -> str | DeviceProfile | None:
    """Return a profile, or its name; the path of a .toml file is resolved from the folder."""
    if device is None or isinstance(device, DeviceProfile):
        return device
    text = os.fspath(device)
    return str(folder / text) if text.endswith(".toml") else text


def check_choice(name: str, value: str | None, known: tuple[str, ...]) -> None:
    """Check that an argument, if it is given, has a known value.

    Raises:
        ArgumentError: The value is unknown; lists the known ones.
    """
    if value is not None and value not in known:
        near = did_you_mean(value, known)
        raise ArgumentError(name, f"unknown: {value!r}{near}", hint=f"one of {', '.join(known)}")


def check_points(name: str, value: float | None) -> None:
    """Check that an argument, if it is given, is a number of percentage points.

    Raises:
        ArgumentError: The value is negative, infinite or not a number.
    """
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise ArgumentError(name, f"{value!r} is not a number of percentage points")


def check_seed(seed: int | None) -> None:
    """Check that a seed, if it is given, is a whole number.

    Raises:
        ArgumentError: It is not.
    """
    if seed is not None and type(seed) is not int:
        raise ArgumentError("seed", f"{seed!r} is not a whole number")


def check_dims(dims: Mapping[str, int] | None) -> dict[str, int]:
    """Check the sizes of free dimensions and return them.

    Raises:
        ArgumentError: A size is not a whole number of at least 1, or too large for the runtimes.
    """
    if dims is not None and not isinstance(dims, Mapping):
        raise ArgumentError("dims", f"{dims!r} is not a dict of sizes by name")
    for name, size in (dims or {}).items():
        if type(size) is not int or not 1 <= size <= _LARGEST:
            raise ArgumentError("dims", f"{name}: {size!r} is not a size of 1 to {_LARGEST:,}")
    return dict(dims or {})


def choose_home(
    home: AnyPath | Home | None, device: Device | None = None, *, folder: AnyPath = "."
) -> Home:
    """Return edgekit's folder on a device, as the caller or a device profile sets it.

    Args:
        home: The folder, if the caller names one.
        device: Profile that may name one; by default that of edgekit.toml.
        folder: The project folder.

    Raises:
        UserError: ``home`` is not a path, or there is no such profile.
    """
    if isinstance(home, Home):
        return home
    if home is not None:
        path = os.fspath(home)
        if not path.strip() or not path.isprintable():
            raise ArgumentError("home", f"{path!r} is not a folder path")
        return Home(path=path, rule="said")
    base = resolve_folder(folder)
    named = resolve_device(base, device or load_project(base).build.device)
    return profile_home(load_profile(named) if named else None)
