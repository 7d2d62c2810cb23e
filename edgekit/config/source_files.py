"""Files of the project that a module imports, itself or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def find_sources(file: Path, folder: Path) -> tuple[Path, ...]:
    """Find a module's file and the files in a folder that it imports, also inside functions.

    Args:
        file: File of the module.
        folder: Folder in which modules are searched; imports from elsewhere are left out.
    """
    found: dict[Path, None] = {}
    waiting = [file.resolve()]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found[each] = None
            waiting.extend(_iter_imported(each, folder.resolve()))
    return tuple(sorted(found))


def _iter_imported(file: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # no source
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _iter_files(folder, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else folder
            for alias in node.names:
                yield from _iter_files(base, f"{node.module or ''}.{alias.name}".strip("."))


def _iter_files(base: Path, name: str) -> Iterator[Path]:
    """Yield the files of a module and of the packages that hold it; the last may be no module."""
    place = base
    for part in name.split("."):
        place = place / part
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                yield file.resolve()
