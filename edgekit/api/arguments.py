"""Checks and conversions of arguments that several functions of the API share."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from edgekit.argument_checks import (
    AnyPath,
    check_arguments,
    check_count,
    check_minutes,
    check_path,
    check_points,
    check_seconds,
    check_settings,
    check_sizes,
    check_text,
    format_value,
    make_error,
)
from edgekit.config.entry_points import is_entry
from edgekit.config.profile import DeviceProfile, load_profile
from edgekit.config.project import load_project
from edgekit.errors import ArgumentError, UserError
from edgekit.metrics.registry import get_metric
from edgekit.recipe import Step
from edgekit.remote.home import Home, profile_home
from edgekit_agent.releases.homes import APP_NAME


def _check_device(name: str, value: object) -> None:
    check_path(name, value, what="a device profile, its name, or the path of its .toml file")


def _check_home(name: str, value: object) -> None:
    check_path(name, value, what="a folder path")
    path = os.fspath(typing.cast("str | os.PathLike[str]", value))
    if not path.strip() or not path.isprintable():
        raise ArgumentError(name, f"{path!r} is not a folder path")


def _check_app_name(name: str, value: object) -> None:
    check_text(name, value, what="the name of a release")
    if not APP_NAME.fullmatch(str(value)):
        hint = "1 to 32 of a-z, 0-9 and -; the first is a letter"
        raise ArgumentError(name, f"{format_value(value)} is not a name", hint=hint)


def _check_steps(name: str, value: object) -> None:
    if isinstance(value, str):
        raise ArgumentError(name, "must be a list of steps, not one text", hint=f"[{value!r}]")
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise make_error(name, value, "is not a list of steps")
    for each in value:
        _check_step(name, each)


def _check_step(name: str, value: object) -> None:
    if isinstance(value, str):
        check_text(name, value, what="the name of a pass")
    elif not isinstance(value, Step):
        hint = "give the name of a pass, or a Step"
        raise ArgumentError(name, f"{format_value(value)} is not a step", hint=hint)


def _check_bundles(name: str, value: object) -> None:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        for each in value:
            check_path(name, each, what="the path of a bundle")
    else:
        check_path(name, value, what="the path of a bundle")


def _check_names(name: str, value: object) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise make_error(name, value, "is not a list of texts")
    for each in value:
        check_text(name, each)


def _check_metric(name: str, value: object) -> None:
    check_text(name, value, what="the name of a metric")
    if is_entry(str(value)):
        return  # imported from the folder of the project
    try:
        get_metric(str(value))
    except UserError as error:
        raise ArgumentError(name, error.message, hint=error.hint) from error


# A device profile: its name, the path of a .toml file, or the profile itself.
Device = Annotated[str | os.PathLike[str], _check_device] | DeviceProfile
# Paths of bundles: one, or several.
Bundles = Annotated[
    str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    _check_bundles,
]
Names = Annotated[Sequence[str], _check_names]
HomePath = Annotated[str | os.PathLike[str], _check_home]
AppName = Annotated[str, _check_app_name]
MetricName = Annotated[str, _check_metric]
Points = Annotated[float, check_points]
Seconds = Annotated[float, check_seconds]
Minutes = Annotated[float, check_minutes]
Count = Annotated[int, check_count]
Sizes = Annotated[Mapping[str, int], check_sizes]
PassSettings = Annotated[Mapping[str, object], check_settings]
AnyStep = Annotated[str | Step, _check_step]
Steps = Annotated[Sequence[str | Step], _check_steps]


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


@check_arguments
def check_app_name(name: AppName | None) -> None:
    """Check that a text can be the name of releases on a device.

    Raises:
        ArgumentError: It cannot.
    """


@check_arguments
def choose_home(
    home: HomePath | Home | None, device: Device | None = None, *, folder: AnyPath = "."
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
        return Home(path=os.fspath(home), rule="said")
    base = resolve_folder(folder)
    named = resolve_device(base, device or load_project(base).build.device)
    return profile_home(load_profile(named) if named else None)
