"""Members of a package file, and the reproducible zip file that holds them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

from edgekit.progress import Count
from edgekit_agent.apps.package_format import PackageFile

# The parts that sizes are told of.
Part = Literal["models", "runtime", "app", "agent", "licenses"]
_STORED = (".whl", ".packed", ".npz", ".png", ".jpg", ".webp", ".woff2")
_MODE = 0o644 << 16


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of a package.

    Attributes:
        data: Its bytes.
        part: The part of the package that it belongs to.
        source: Where it comes from, if it is a file of the user's: the bundle or the app folder.
        expanded_digest: For a packed file, sha256 of the file that it expands to.
        expanded_bytes: For a packed file, the size of that file.
    """

    data: bytes
    part: Part
    source: str = ""
    expanded_digest: str = ""
    expanded_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class PackagedFile:
    """A file of the user's that is in a package.

    Attributes:
        path: Its path in the package.
        source: The bundle or the file that it comes from.
        bytes: Its size in the package.
    """

    path: str
    source: str
    bytes: int


def describe_members(members: Mapping[str, Member]) -> tuple[PackageFile, ...]:
    """Return path, digest and size of each member, sorted by path."""
    return tuple(
        PackageFile(
            path=path,
            digest=hashlib.sha256(members[path].data).hexdigest(),
            bytes=len(members[path].data),
            expanded_digest=members[path].expanded_digest,
            expanded_bytes=members[path].expanded_bytes,
        )
        for path in sorted(members)
    )


def write_zip(file: BinaryIO, contents: Mapping[str, bytes], tell: Count) -> None:
    """Write a zip file that depends on the contents alone: sorted, with fixed times and modes.

    Args:
        file: An open file, which may hold other bytes before the zip file.
        contents: Contents by path.
        tell: Called with the bytes done and in total.
    """
    total, done = sum(map(len, contents.values())), 0
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(contents):
            info = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            is_stored = path.endswith(_STORED)
            info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            info.external_attr = _MODE
            info.create_system = 3
            archive.writestr(info, contents[path], compresslevel=None if is_stored else 9)
            done += len(contents[path])
            tell(done, total)


def count_part_bytes(members: Mapping[str, Member]) -> dict[str, int]:
    """Return the bytes of each part, before the zip file deflates some of them."""
    sizes: dict[str, int] = {}
    for member in members.values():
        sizes[member.part] = sizes.get(member.part, 0) + len(member.data)
    return sizes
