"""Example projects that come with edgekit, copied into a folder of the user's."""

from __future__ import annotations

import errno
import re
import secrets
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from edgekit.config.project import FILE_NAME
from edgekit.config.shipped_files import get_shipped_folder
from edgekit.errors import UserError, did_you_mean
from edgekit.pipeline.output_folders import check_writable

# Folders that a checkout may hold beside the files of an example.
_OUTPUTS = {"build", "__pycache__"}


@dataclass(frozen=True, kw_only=True)
class ExampleFacts:
    """Name and one-line description of an example."""

    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class ExampleProject:
    """Copy of an example; ``device`` is the device that its edgekit.toml names."""

    name: str
    folder: Path
    files: tuple[str, ...]
    device: str


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
    given, target = Path(folder), Path(folder).resolve()
    _check_target(given, target)
    scratch = target.parent / f".{target.name}-{secrets.token_hex(4)}"
    try:
        files = tuple(_copy_files(source, scratch))
        _move_into_place(scratch, target, given)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    settings = tomllib.loads((target / FILE_NAME).read_text(encoding="utf-8"))
    return ExampleProject(
        name=name, folder=given, files=files, device=str(settings["build"]["device"])
    )


def _check_target(given: Path, target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()):
            raise UserError(f"{given}: is not empty", hint="choose a new folder")
        if target == Path.cwd():
            raise UserError(f"{given}: is the current folder", hint="choose a new folder in it")
    elif target.exists():
        raise UserError(f"{given}: exists, and is not a folder", hint="choose a new folder")
    elif not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder", hint="create it first")
    check_writable(target.parent, hint="choose another folder")


def _copy_files(source: Traversable, target: Path) -> Iterator[str]:
    """Copy the files of an example into a new folder, and yield their relative paths."""
    target.mkdir()
    for entry in sorted(source.iterdir(), key=lambda e: e.name):
        if entry.name in _OUTPUTS:
            continue
        if entry.is_dir():
            yield from (f"{entry.name}/{name}" for name in _copy_files(entry, target / entry.name))
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
            yield entry.name


def _move_into_place(scratch: Path, target: Path, given: Path) -> None:
    """Rename a complete folder to its final name; only an empty folder is replaced."""
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{given}: is no longer empty", hint="choose a new folder") from error
        raise


def _read_summary(folder: Traversable) -> str:
    """Return the first sentence of an example's README, up to a full stop or colon."""
    with suppress(OSError):
        text = (folder / "README.md").read_text(encoding="utf-8")
        for block in text.split("\n\n"):
            if block.strip() and not block.startswith("#"):
                return re.split(r"[.:](?=\s)", " ".join(block.split()))[0].rstrip(".:")
    return ""
