"""Files that come with edgekit beside its code: profiles, examples, and parts of apps."""

from __future__ import annotations

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
