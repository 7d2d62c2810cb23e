"""Options and arguments shared by several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import complete_device
from edgekit.errors import UserError

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
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed of every random choice.")
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle", help="Allow the model file to run code that it contains, as pickles do."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead.")]
MeasuredHosts = Annotated[
    list[str],
    typer.Argument(
        metavar="HOST", help="'local', 'web' (headless Chromium), an ssh alias, or user@host:port."
    ),
]
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
    str | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="edgekit's folder on the device; a relative one is below your home there.",
    ),
]
AppName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the releases; each name has its own."),
]
Evaluation = Annotated[
    str | None, typer.Option("--eval", metavar="EVAL", help="Labeled samples to score.")
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="Metric of accuracy, or module:function."),
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
