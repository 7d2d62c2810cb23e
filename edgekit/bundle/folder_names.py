"""Removal of this machine's folders from texts that leave it."""

from __future__ import annotations

import tempfile
from pathlib import Path


def hide_folders(text: str, *, out: Path, cache: Path) -> str:
    """Replace the folders of this machine in a text, such as the reason of a failure.

    Names of files below them stay, so that the text remains of use where it was made.

    Args:
        text: The text, also in JSON.
        out: Folder of the build.
        cache: Folder of the cache.
    """
    out = out.resolve()
    named = {
        cache: "CACHE",
        out: f"build/{out.name}",
        out.parent.parent: ".",
        Path.cwd(): ".",
        Path(tempfile.gettempdir()): "TEMP",
        Path.home(): "~",
    }
    shown = {str(path): name for path, name in named.items() if len(path.parts) > 1}
    shown |= {str(path.resolve()): name for path, name in named.items() if len(path.parts) > 1}
    for path in sorted(shown, key=len, reverse=True):
        text = text.replace(path, shown[path])
    return text
