"""Reading of a package file: every member is bounded, and verified by its digest."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from typing import Any, BinaryIO, Callable, Iterator, Optional, Protocol, cast

from edgekit_agent.apps.package_format import (
    MOST_FILES,
    MOST_PACKAGE_BYTES,
    PACKAGE,
    SIGNATURE,
    Package,
    PackageFile,
    decode_package,
    get_release_name,
)
from edgekit_agent.failures import AgentError
from edgekit_agent.files import CHUNK

_MOST_SIGNATURE_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Errors of ``zipfile`` when a file is damaged, or needs a feature that packages do not use.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)

Tell = Callable[[int, int], None]
"""Called with the number of bytes done, and of all bytes."""


class PackageReader(Protocol):
    """A source of the members of a package: its file, or what was received of it.

    Attributes:
        data: the bytes of ``package.json``.
        package: the statement.
        release: the name of its release.
    """

    data: bytes
    package: Package
    release: str

    def verify(self, report: Optional[Tell] = None) -> None:
        """Check that every member that the installation needs is intact; nothing is written."""

    def copy(self, file: PackageFile, target: str) -> None:
        """Write a member to a new file."""

    def copy_expanded(self, file: PackageFile, target: str) -> bool:
        """Write the expanded form of a packed member to a new file, if it is here already."""

    def read_signature(self) -> Optional[bytes]:
        """Return the bytes of ``signature.json``; ``None`` if the package is not signed."""

    def open_stored(self, path: str) -> BinaryIO:
        """Open a wheel as a file in which a reader can seek."""


class ZipPackage:
    """An open package file whose listing agrees with its statement.

    Attributes:
        path: path of the file.
        data: the bytes of ``package.json``.
        package: the statement.
        release: the name of its release.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile, data: bytes, package: Package) -> None:
        self.path, self.data, self.package = path, data, package
        self.release = get_release_name(data)
        self._archive = archive

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def verify(self, report: Optional[Tell] = None) -> None:
        """Read every member and compare it with its digest; nothing is written.

        Raises:
            AgentError: ``corrupt``.
        """
        total, done = sum(file.bytes for file in self.package.files), 0
        for file in self.package.files:
            for chunk in self.iter_chunks(file):
                done += len(chunk)
                if report is not None:
                    report(done, total)

    def iter_chunks(self, file: PackageFile) -> Iterator[bytes]:
        """Yield the bytes of a member; the last chunk comes only if the digest agrees.

        Raises:
            AgentError: ``corrupt``.
        """
        digest, size, held = hashlib.sha256(), 0, b""
        try:
            with self._archive.open(file.path) as source:
                for chunk in iter(lambda: source.read(CHUNK), b""):
                    size += len(chunk)
                    if size > file.bytes:
                        raise _make_damage_error(self.path, f"{file.path} is too large")
                    digest.update(chunk)
                    if held:
                        yield held
                    held = chunk
        except _DAMAGE as error:
            raise _make_damage_error(self.path, f"{file.path}: {error}") from error
        if size != file.bytes or digest.hexdigest() != file.digest:
            raise _make_damage_error(self.path, f"{file.path} has another digest than stated")
        if held:
            yield held

    def copy(self, file: PackageFile, target: str) -> None:
        """Write a member to a new file.

        Raises:
            AgentError: ``corrupt``; the new file is incomplete.
        """
        with open(target, "xb") as out:
            for chunk in self.iter_chunks(file):
                out.write(chunk)

    def copy_expanded(self, file: PackageFile, target: str) -> bool:
        """Return False: a package file has packed members as such."""
        return False

    def read_signature(self) -> Optional[bytes]:
        """Return the bytes of ``signature.json``; ``None`` if the package is not signed."""
        if SIGNATURE not in self._archive.NameToInfo:
            return None
        return _read_small(self.path, self._archive, SIGNATURE, _MOST_SIGNATURE_BYTES)

    def open_stored(self, path: str) -> BinaryIO:
        """Open a member that is stored, not compressed, as a file in which a reader can seek.

        Raises:
            AgentError: ``corrupt``: it is compressed.
        """
        info = self._archive.getinfo(path)
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _make_damage_error(self.path, f"{path} is compressed")
        source = open(self.path, "rb")  # noqa: SIM115 - the caller closes it
        try:
            source.seek(info.header_offset)
            signature, name, extra = _LOCAL_HEADER.unpack(source.read(_LOCAL_HEADER.size))
            if signature != b"PK\3\4":
                raise _make_damage_error(self.path, f"{path} is not where the listing states")
        except BaseException:
            source.close()
            raise
        begin = info.header_offset + _LOCAL_HEADER.size + name + extra
        section = io.BufferedReader(_Section(source, begin, info.file_size))
        return cast(BinaryIO, section)


def open_package(path: str) -> ZipPackage:
    """Open a package file and compare its listing with its statement.

    Raises:
        AgentError: ``corrupt``: it is damaged, incomplete, or not a package; ``missing_file``.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise _make_damage_error(path, str(error)) from error
    try:
        data = _check_and_read(path, archive)
        package = decode_package(data)
        _check_listing(path, archive, package)
    except ValueError as error:
        archive.close()
        raise _make_damage_error(path, f"{PACKAGE}: {error}") from error
    except BaseException:
        archive.close()
        raise
    return ZipPackage(path, archive, data, package)


def _check_and_read(path: str, archive: zipfile.ZipFile) -> bytes:
    """Check the form of every entry of the listing, and return the bytes of ``package.json``."""
    infos = archive.infolist()
    if len(infos) > MOST_FILES + 2 or len(archive.NameToInfo) != len(infos):
        raise _make_damage_error(path, "it has too many members, or one twice")
    for info in infos:
        mode = info.external_attr >> 16
        is_plain = not info.is_dir() and stat.S_IFMT(mode) in (0, stat.S_IFREG)
        if not is_plain or info.flag_bits & _IS_ENCRYPTED or info.compress_type not in _METHODS:
            raise _make_damage_error(path, f"{info.filename[:80]!r} is not a plain file")
    if PACKAGE not in archive.NameToInfo:
        raise _make_damage_error(path, f"{PACKAGE} is missing")
    return _read_small(path, archive, PACKAGE, MOST_PACKAGE_BYTES)


def _check_listing(path: str, archive: zipfile.ZipFile, package: Package) -> None:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    sizes.pop(PACKAGE)
    sizes.pop(SIGNATURE, None)
    stated = {file.path: file.bytes for file in package.files}
    different = sorted(set(sizes.items()) ^ set(stated.items()))
    if different:
        raise _make_damage_error(path, f"{different[0][0][:80]!r} is missing, unstated or resized")


def _read_small(path: str, archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    try:
        with archive.open(name) as file:
            data = file.read(most_bytes + 1)
    except _DAMAGE as error:
        raise _make_damage_error(path, f"{name}: {error}") from error
    if len(data) > most_bytes:
        raise _make_damage_error(path, f"{name} is larger than {most_bytes} bytes")
    return data


def _make_damage_error(path: str, what: str) -> AgentError:
    return AgentError(
        "corrupt",
        f"{os.path.basename(path)}: not a complete package file: {what}",
        hint="copy the file to the device again",
    )


class _Section(io.RawIOBase):
    """A section of a file, read as a file of its own."""

    def __init__(self, source: BinaryIO, begin: int, size: int) -> None:
        super().__init__()
        self._source, self._begin, self._size, self._position = source, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, which is never before the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill a buffer with the next bytes of the section."""
        count = max(0, min(len(buffer), self._size - self._position))
        self._source.seek(self._begin + self._position)
        data = self._source.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file, too."""
        self._source.close()
        super().close()
