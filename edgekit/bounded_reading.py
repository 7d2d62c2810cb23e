"""Reading of files and zip members up to a size limit."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Read a regular file up to a size limit; refuse pipes and devices, which may never end.

    Raises:
        OSError: The file cannot be read.
        ValueError: The path is not a regular file, or the file is larger.
    """
    _check_regular(path)
    with path.open("rb") as file:
        # Not the limit itself, as read() would allocate that much at once.
        data = file.read(min(most_bytes, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > most_bytes:
        raise ValueError(f"larger than {most_bytes} bytes")
    return data


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file if it is a regular file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The path is not a regular file.
        zipfile.BadZipFile: The file is not a zip file.
    """
    _check_regular(path)
    return zipfile.ZipFile(path)


def read_member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    """Read a member of a zip file after checking its declared size.

    Raises:
        KeyError: There is no such member.
        ValueError: The member is larger.
    """
    info = archive.getinfo(name)
    if info.file_size > most_bytes:
        raise ValueError(f"{info.file_size} bytes, expected at most {most_bytes}")
    with archive.open(info) as member:
        return member.read(most_bytes + 1)


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
