"""Removal of this machine's folders from texts that leave it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgekit.pipeline.request import BuildInputs


def hide_folders(text: str, inputs: BuildInputs) -> str:
    """Replace the folders of this machine in a text, such as the reason of a failure.

    Names of files below them stay, so that the text remains of use where it was made.

    Args:
        text: The text, also in JSON.
        inputs: The inputs of the build.
    """
    out = inputs.out.resolve()
    named = {
        inputs.store.root: "CACHE",
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
