"""Files that come with edgekit beside its code: profiles, examples, and parts of apps."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def get_shipped_folder(name: str) -> Traversable:
    """Return a folder of shipped files: inside the package, or beside it in a checkout.

    Args:
        name: Path of the folder in a checkout, such as ``examples`` or ``targets/pages``.
    """
    inside = resources.files("edgekit").joinpath(*name.split("/"))
    return inside if inside.is_dir() else Path(__file__).parents[2] / name


def iter_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of each file below a folder, without hidden ones, by name.

    Args:
        folder: The folder.
        prefix: Text before each path.
    """
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            yield from iter_files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()
