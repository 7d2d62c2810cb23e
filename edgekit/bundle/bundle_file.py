"""Bundles on disk: opened, checked and written whole."""

from __future__ import annotations

import hashlib
import json
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import (
    ValidationError,
)

from edgekit.bounded_reading import open_zip, read_member, read_regular
from edgekit.bundle.manifest import (
    MANIFEST,
    PACKED,
    SIGNATURE,
    SUFFIX,
    Manifest,
)
from edgekit.bundle.manifest_versions import (
    check_schema_version,
    use_present_fields,
)
from edgekit.bundle.packing import TransferData, encode_for_transfer
from edgekit.bundle.pipeline_folder import get_hint
from edgekit.errors import UserError, reason
from edgekit_agent import strictjson
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic
from edgekit_agent.jobs import NamedBlob
from edgekit_agent.limits import get_expansion_limit
from edgekit_agent.packing.unpack import unpack
from edgekit_agent.releases.provenance import MOST_MANIFEST_BYTES
from edgekit_agent.releases.records import check_file_names
from edgekit_agent.trust.signatures import has_valid_signature, read_statement
from edgekit_agent.trust.statements import Signature, Statement

# Allowed excess of a packed file over its unpacked size; tiny files grow when packed.
_MOST_OVERHEAD = 1 << 16
_MOST_SIGNATURE_BYTES = 1 << 18
# Exceptions of reading a damaged or encrypted file.
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    AgentError,
)
_HINT = "give the folder that 'edgekit build' wrote (build/NAME) or its .edgekit file"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle: the folder written by ``build``, or a single file.

    ``signature`` is ``None`` if the bundle was built without a key.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature: Signature | None = None

    def read(self, name: str) -> bytes | bytearray:
        """Read one file of the bundle and check its digest.

        Raises:
            UserError: The file is missing, or differs from the manifest.
        """
        try:
            data = self._read_stored(name)
        except _DAMAGE as error:
            raise UserError(
                f"{self.path}: {name}: cannot be read: {reason(error)}", hint=_HINT
            ) from error
        file = self.manifest.file(name)
        is_same = hashlib.sha256(data).hexdigest() == file.digest
        if not is_same or len(data) != file.bytes:
            raise UserError(
                f"{self.path}: {name} does not match the manifest (its "
                f"{'size' if is_same else 'sha256'} differs)",
                hint="the file was changed after the build; build again",
            )
        return data

    def check(self) -> None:
        """Check every file against the manifest and the signature.

        The device decides whether it trusts the key.

        Raises:
            UserError: A check fails.
        """
        for file in self.manifest.files:
            self.read(file.name)
        if self.signature is not None:
            self._check_signature(self.signature)

    def _check_signature(self, signature: Signature) -> None:
        if not has_valid_signature(Statement, signature):
            raise self._make_signature_error("was not created with the key that it names")
        files = {(f.name, f.digest, f.bytes) for f in self.manifest.files}
        digest = hashlib.sha256(self.manifest_bytes).hexdigest()
        files.add((MANIFEST, digest, len(self.manifest_bytes)))
        if {(f.name, f.digest, f.bytes) for f in self.statement().files} != files:
            raise self._make_signature_error("belongs to other files")

    def statement(self) -> Statement:
        """Read the signed statement; trust it only after ``check``.

        Raises:
            UserError: The bundle is not signed, or the statement cannot be read.
        """
        if self.signature is None:
            raise UserError(f"{self.path}: not signed")
        try:
            return read_statement(Statement, self.signature)
        except ValueError as error:
            raise self._make_signature_error(f"cannot be read: {error}") from error

    def _make_signature_error(self, why: str) -> UserError:
        return UserError(
            f"{self.path}: {SIGNATURE}: the signature {why}",
            hint="the bundle was changed after the build; build again",
        )

    def _read_stored(self, name: str) -> bytes | bytearray:
        size = self.manifest.file(name).bytes
        if self.path.is_dir():
            return read_regular(self.path / name, size)
        with open_zip(self.path) as archive:
            if name + PACKED not in archive.namelist():
                return read_member(archive, name, size)
            packed = read_member(archive, name + PACKED, size + _MOST_OVERHEAD)
            if size > get_expansion_limit(len(packed)):
                raise ValueError(f"{len(packed)} packed bytes declare an expanded size of {size}")
            return unpack(packed, size)

    def encode_for_transfer(self, name: str) -> TransferData:
        """Return a file as it is sent to a device: packed by the build, or else packed now.

        The digest is not checked here: the device checks it after the transfer.
        """
        packed = self._read_packed(name)
        if packed is not None:
            return TransferData(encoding="packed", data=packed)
        return encode_for_transfer(bytes(self._read_stored(name)))

    def _read_packed(self, name: str) -> bytes | None:
        """Read the packed file from the bundle file; ``None`` if it is not packed.

        A build folder holds a bundle file of its own, which is read if its manifest is the same.
        """
        path = self.path / f"{self.manifest.name}{SUFFIX}" if self.path.is_dir() else self.path
        if not path.is_file() or not zipfile.is_zipfile(path):
            return None
        most = self.manifest.file(name).bytes + _MOST_OVERHEAD
        with open_zip(path) as archive:
            if read_member(archive, MANIFEST, MOST_MANIFEST_BYTES) != self.manifest_bytes:
                return None
            is_there = name + PACKED in archive.namelist()
            return read_member(archive, name + PACKED, most) if is_there else None

    def blobs(self) -> tuple[NamedBlob, ...]:
        """Return the name and digest of every file except the manifest."""
        return tuple(NamedBlob(f.name, f.digest) for f in self.manifest.files)


def open_bundle(path: Path) -> Bundle:
    """Open a build folder or a bundle file.

    Raises:
        UserError: The path is neither, or the manifest is damaged.
    """
    try:
        text = _read_file(path, MANIFEST, MOST_MANIFEST_BYTES)
    except _DAMAGE as error:
        raise UserError(
            f"{path}: not a bundle: {reason(error)}", hint=get_hint(path, _HINT)
        ) from error
    try:
        values = use_present_fields(strictjson.loads(text))
    except ValueError as error:
        raise UserError(f"{path}: {MANIFEST}: {reason(error)}", hint=_HINT) from error
    check_schema_version(path, values)
    try:
        manifest = Manifest.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise UserError(f"{path}: {MANIFEST}: {where}: {first['msg']}", hint=_HINT) from error
    try:
        check_file_names([MANIFEST, *(file.name for file in manifest.files)])
    except ValueError as error:
        raise UserError(f"{path}: {MANIFEST}: {error}", hint=_HINT) from error
    absent = {manifest.model, manifest.golden_samples} - {file.name for file in manifest.files}
    if absent:
        raise UserError(
            f"{path}: {MANIFEST}: the digest of {', '.join(sorted(absent))} is missing", hint=_HINT
        )
    signature = _read_signature(path)
    return Bundle(path=path, manifest=manifest, manifest_bytes=text, signature=signature)


def _read_file(path: Path, name: str, most_bytes: int) -> bytes:
    """Read an unpacked file of a build folder or a bundle file, up to a size limit."""
    if path.is_dir():
        return read_regular(path / name, most_bytes)
    with open_zip(path) as archive:
        return read_member(archive, name, most_bytes)


def _read_signature(path: Path) -> Signature | None:
    """Read the signature of a bundle, if it has one."""
    try:
        data = _read_file(path, SIGNATURE, _MOST_SIGNATURE_BYTES)
    except (FileNotFoundError, KeyError):
        return None
    except _DAMAGE as error:
        raise UserError(f"{path}: {SIGNATURE}: cannot be read: {reason(error)}") from error
    try:
        return decode(Signature, strictjson.loads(data))
    except ValueError as error:
        raise UserError(f"{path}: {SIGNATURE}: damaged: {error}", hint=_HINT) from error


def encode_signature(signature: Signature) -> bytes:
    """Return the bytes of signature.json."""
    return json.dumps(encode(signature), indent=1).encode() + b"\n"


def write_bundle(path: Path, members: Mapping[str, bytes]) -> None:
    """Write the members as one reproducible zip file: fixed order and times, deflated.

    Args:
        path: The output file, written completely or not at all.
        members: Contents by name, including the manifest. The name of a packed file ends with
            ``PACKED``.
    """
    with open_atomic(str(path)) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            packed = name.endswith(PACKED)
            info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name], compresslevel=9)
