"""Options and arguments shared by several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.completion import complete_device
from edgekit.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from edgekit.remote.home import Home

# Largest size of a dimension in every runtime.
_LARGEST = (1 << 31) - 1


def change_folder(folder: Path) -> Path:
    """Change to a folder before anything else is read, as ``git -C`` does."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    os.chdir(folder)
    return Path()


Folder = Annotated[
    Path, typer.Option("-C", metavar="DIR", help="Work in this folder.", callback=change_folder)
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle", help="Allow the model file to run code that it contains, as pickles do."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead.")]
Hosts = Annotated[
    list[str], typer.Argument(metavar="HOST", help="'local', an ssh alias, or user@host:port.")
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device profile or .toml file.",
        autocompletion=complete_device,
    ),
]
HomeFolder = Annotated[
    str | None, typer.Option("--home", metavar="DIR", help="edgekit's folder on the device.")
]
Evaluation = Annotated[
    str | None, typer.Option("--eval", metavar="EVAL", help="Labeled samples to score.")
]
Metric = Annotated[
    str | None, typer.Option("--metric", metavar="NAME", help="top1, top5 or binary.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="CALIB", help="Calibration samples.")]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dims", metavar="NAME=SIZE", help="Size of a free dimension; repeatable."),
]


def parse_dims(given: list[str] | None) -> dict[str, int]:
    """Parse the sizes that ``--dims`` gives to free dimensions, by name.

    Raises:
        UserError: A text is not NAME=SIZE, or a name has two sizes.
    """
    sizes: dict[str, int] = {}
    for text in given or []:
        name, equals, size = text.rpartition("=")
        # At most ten digits: int() of thousands of digits is slow and raises another error.
        number = int(size) if size.isascii() and size.isdigit() and len(size) <= 10 else 0
        if not (name and equals and 1 <= number <= _LARGEST):
            raise UserError(
                f"--dims {text}: not NAME=SIZE, with a size of 1 to {_LARGEST:,}",
                hint="example: --dims length=128; 'edgekit inspect MODEL' shows the names",
            )
        if sizes.setdefault(name, number) != number:
            raise UserError(f"--dims: {name} is given twice, as {sizes[name]} and {number}")
    return sizes


def find_home(home: str | None, device: str | None) -> Home:
    """Return edgekit's folder on the devices, from ``--home`` or the user's device profile.

    Args:
        home: ``--home``, if given.
        device: ``--device``, if given; else the device of edgekit.toml in this folder.

    Raises:
        UserError: ``home`` is not a path, or there is no such profile.
    """
    from edgekit.config.profile import load_profile
    from edgekit.config.project import load_project
    from edgekit.remote.home import Home, profile_home

    if home is not None:
        if not home.strip() or not home.isprintable():
            raise UserError(f"--home {home!r}: not a folder path")
        return Home(path=home, rule="said")
    device = device or load_project(Path()).build.device
    return profile_home(load_profile(device) if device else None)


def check_choice(option: str, value: str | None, known: tuple[str, ...]) -> str | None:
    """Check that a value is a known one and return it.

    Raises:
        UserError: The value is unknown; lists the known ones.
    """
    if value is not None and value not in known:
        near = did_you_mean(value, known)
        raise UserError(f"{option}: unknown: {value!r}{near}", hint=f"one of {', '.join(known)}")
    return value
