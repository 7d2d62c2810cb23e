"""Output folder of a ``[pipeline]``: a folder for each model, and the result of all together."""

from __future__ import annotations

from pathlib import Path

# File with the result of all models together.
SUMMARY = "pipeline.json"


def get_hint(folder: Path, hint: str) -> str:
    """Return a hint that names the folders of the models, if a folder holds those of a pipeline.

    Args:
        folder: The folder that was given.
        hint: The hint for any other folder.
    """
    if not (folder / SUMMARY).is_file():
        return hint
    parts = sorted(str(each) for each in folder.iterdir() if each.is_dir())
    return f"the models of a [pipeline] have a folder each: give {' or '.join(parts)}"
