"""Detection of the source that a name of the user refers to, and its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekit.config.entry_points import is_entry
from edgekit.conversion.importers.file_kind import detect_content
from edgekit.conversion.importers.registry import SOURCES, Kind, Source
from edgekit.errors import UserError
from edgekit_agent.files import sha256_of

_MARK = "saved_model.pb"

SUFFIXES = tuple(suffix for row in SOURCES.values() for suffix in row.suffixes)


def detect_source(source_path: Path, *, folder: Path, trusted: bool) -> Source | None:
    """Detect the source that has to be converted; ``None`` if there is nothing to convert.

    Args:
        source_path: A file, a SavedModel folder, ``FOLDER#signature`` or ``module:function``.
        folder: Folder of the project, in which modules are searched.
        trusted: Whether code in the file may run.
    """
    text = str(source_path)
    path, hash_, signature = text.rpartition("#")
    if hash_ and not source_path.exists() and is_saved_model(Path(path)):
        return Source(kind="saved_model", display_name=text, path=Path(path), name=signature)
    if is_saved_model(source_path):
        return Source(kind="saved_model", display_name=text, path=source_path)
    if not source_path.exists() and is_entry(text):
        return Source(kind="function", display_name=text, path=folder, name=text)
    content = None if source_path.is_dir() else detect_content(source_path)
    if content == "runnable" or source_path.is_dir():
        return None
    kind = content or _find_kind_by_suffix(source_path)
    return Source(kind=kind, display_name=text, path=source_path, trusted=trusted) if kind else None


def _find_kind_by_suffix(path: Path) -> Kind | None:
    """Return the kind of a source with unrecognized content: compressed, damaged or missing."""
    suffix = path.suffix.lower()
    return next((kind for kind, row in SOURCES.items() if suffix in row.suffixes), None)


def is_saved_model(path: Path) -> bool:
    """Return whether a folder is a TensorFlow SavedModel."""
    return (path / _MARK).is_file()


def list_files(source: Source) -> tuple[Path, ...]:
    """Return the files from which a source is read; none for code."""
    if source.kind == "function":
        return ()
    if source.path.is_dir():
        return tuple(sorted(p for p in source.path.rglob("*") if p.is_file()))
    return (source.path,)


def compute_digest(source: Source) -> str:
    """Return the sha256 of a source's file, or of the names and digests of its folder's files.

    Raises:
        UserError: A file cannot be read.
    """
    try:
        if not source.path.is_dir():
            return sha256_of(str(source.path))
        lines = [
            f"{file.relative_to(source.path)} {sha256_of(str(file))}" for file in list_files(source)
        ]
    except OSError as error:
        raise UserError(f"{source.display_name}: cannot be read: {error.strerror}") from error
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
