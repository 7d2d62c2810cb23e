"""Example projects that come with edgekit, copied into a folder of the user's."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from edgekit.config.output_folders import create_folder
from edgekit.config.project import FILE_NAME
from edgekit.config.shipped_files import get_shipped_folder
from edgekit.errors import UserError, did_you_mean

# Folders that a checkout may hold beside the files of an example.
_OUTPUTS = {"build", "__pycache__"}


@dataclass(frozen=True, kw_only=True)
class ExampleFacts:
    """Name and one-line description of an example."""

    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class ExampleProject:
    """Copy of an example.

    Attributes:
        name: Name of the example.
        folder: Folder of the copy.
        files: Its files.
        device: Device that its edgekit.toml names.
        is_trained: Whether the model is there; else ``python train.py`` in the folder makes it.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    device: str
    is_trained: bool = True


def list_examples() -> tuple[ExampleFacts, ...]:
    """List the examples that come with edgekit, by name."""
    folders = [f for f in get_shipped_folder("examples").iterdir() if f.is_dir()]
    return tuple(
        ExampleFacts(name=f.name, summary=_read_summary(f))
        for f in sorted(folders, key=lambda f: f.name)
        if (f / FILE_NAME).is_file()
    )


def write_example(name: str, folder: Path | str) -> ExampleProject:
    """Write an example project into a new or empty folder, whole or not at all.

    Args:
        name: The name of the example; ``list_examples`` lists them.
        folder: The folder to write; its parent must exist.

    Raises:
        UserError: There is no such example, or the folder is not empty.
    """
    known = [example.name for example in list_examples()]
    if name not in known:
        raise UserError(
            f"no example named {name!r}{did_you_mean(name, known)}",
            hint=f"known: {', '.join(known)}",
        )
    source = get_shipped_folder("examples") / name
    given = Path(folder)
    with create_folder(given) as scratch:
        files = tuple(_copy_files(source, scratch))
        settings = tomllib.loads((scratch / FILE_NAME).read_text(encoding="utf-8"))
    return ExampleProject(
        name=name,
        folder=given,
        files=files,
        device=str(settings["build"]["device"]),
        is_trained=settings["model"]["path"] in files,
    )


def _copy_files(source: Traversable, target: Path) -> Iterator[str]:
    """Copy the files of an example into an empty folder, and yield their relative paths."""
    for entry in sorted(source.iterdir(), key=lambda e: e.name):
        if entry.name in _OUTPUTS:
            continue
        if entry.is_dir():
            (target / entry.name).mkdir()
            yield from (f"{entry.name}/{name}" for name in _copy_files(entry, target / entry.name))
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
            yield entry.name


def _read_summary(folder: Traversable) -> str:
    """Return the first sentence of an example's README, up to a full stop or colon."""
    with suppress(OSError):
        text = (folder / "README.md").read_text(encoding="utf-8")
        for block in text.split("\n\n"):
            if block.strip() and not block.startswith("#"):
                return re.split(r"[.:](?=\s)", " ".join(block.split()))[0].rstrip(".:")
    return ""
