"""Reading of files and zip members up to a size limit."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Read a regular file up to a size limit; refuse pipes and devices, which may never end.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or larger.
    """
    _check_regular(path)
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"larger than {most_bytes} bytes")
    return data


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file, if it is a regular file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file.
        zipfile.BadZipFile: it is no zip file.
    """
    _check_regular(path)
    return zipfile.ZipFile(path)


def read_member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    """Read a member of a zip file; its declared size is checked before it is unpacked.

    Raises:
        KeyError: there is none.
        ValueError: it is larger.
    """
    info = archive.getinfo(name)
    if info.file_size > most_bytes:
        raise ValueError(f"{info.file_size} bytes, expected at most {most_bytes}")
    with archive.open(info) as member:
        return member.read(most_bytes + 1)


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
