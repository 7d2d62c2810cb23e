"""Search for the character set of a text recognizer near its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.config.project import PostprocessTable

_NAMES = ("charset.txt", "dict.txt")
_MOST_BYTES, _MOST_FILES = 1 << 20, 64


def list_ctc_kinds(classes: int, folders: Sequence[Path]) -> tuple[PostprocessTable, ...]:
    """Return the CTC decodings that a text file with one character per line allows.

    The blank is the first class or the last one; a space may be missing in the file.

    Args:
        classes: Number of classes of the output, the blank included.
        folders: Folders in which the file may lie; the path is relative to the first one.
    """
    for path in _iter_text_files(folders):
        missing = classes - 1 - _count_lines(path)
        if missing in (0, 1):
            charset = str(path.relative_to(folders[0]) if _lies_in(path, folders[0]) else path)
            return tuple(
                PostprocessTable(kind="ctc", charset=charset, space=missing == 1, blank=blank)
                for blank in (0, classes - 1)
            )
    return ()


def _iter_text_files(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the text files of some folders, those with a usual name first."""
    places = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    for place in places:
        yield from (place / name for name in _NAMES if (place / name).is_file())
    for place in places:
        found = sorted(p for p in place.glob("*.txt") if p.is_file() and p.name not in _NAMES)
        yield from found[:_MOST_FILES]


def _count_lines(path: Path) -> int:
    """Count the lines of a text file; 0 if it is too large or no text."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return 0
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return 0
    return len(text.removesuffix("\n").split("\n"))


def _lies_in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)
