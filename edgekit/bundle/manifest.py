"""Bundle: a manifest, the model, its golden samples, and the digest of each file."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from edgekit.bounded_reading import open_zip, read_member, read_regular
from edgekit.bundle.manifest_versions import (
    OLD_GOLDEN_SAMPLES,
    SCHEMA_VERSION,
    SchemaVersion,
    check_schema_version,
    use_present_fields,
)
from edgekit.bundle.packing import TransferData, encode_for_transfer
from edgekit.config.profile import DeviceProfile, RuntimeName
from edgekit.config.project import PreprocessSettings
from edgekit.errors import UserError, reason
from edgekit.model import Format
from edgekit.old_names import rename_stored_recipe
from edgekit_agent import strictjson
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic
from edgekit_agent.jobs import NamedBlob
from edgekit_agent.limits import get_expansion_limit
from edgekit_agent.packing.unpack import unpack
from edgekit_agent.releases.provenance import MOST_MANIFEST_BYTES
from edgekit_agent.releases.records import MOST_RELATIVE_ERROR, MOST_THREADS, check_file_names
from edgekit_agent.trust.signatures import has_valid_signature, read_statement
from edgekit_agent.trust.statements import Signature, Statement

MANIFEST = "manifest.json"
GOLDEN_SAMPLES = "golden.npz"
SIGNATURE = "signature.json"
SUFFIX = ".edgekit"
PACKED = ".packed"
# Allowed excess of a packed file over its unpacked size; tiny files grow when packed.
_MOST_OVERHEAD = 1 << 16
RELEASE_DIGITS = 16
RESULTS = "results.jsonl"
LOCK = "edgekit.lock"
REPORT = "report.html"
MODELS = ("model.onnx", "model.tflite")
BUILT_FILES = (
    *MODELS, GOLDEN_SAMPLES, OLD_GOLDEN_SAMPLES, MANIFEST, SIGNATURE, LOCK, REPORT,
)  # fmt: skip
_MOST_SIGNATURE_BYTES = 1 << 18
# In bytes; file systems have 255, some of them for the suffix.
_LONGEST_NAME = 200

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


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BundledFile(_Part):
    """A file of the bundle other than the manifest.

    ``transfer_bytes`` is the number of bytes sent to a device that lacks the file, and ``encoding``
    the encoding of these bytes. Bundles of older versions of edgekit state neither.
    """

    name: str
    digest: str
    bytes: int = Field(ge=0)
    transfer_bytes: int | None = Field(default=None, ge=0)
    encoding: Literal["raw", "packed"] | None = None


class RuntimeUse(_Part):
    """Runtime that measured the model on the host, and the number of threads it is to use."""

    name: RuntimeName
    version: str = Field(max_length=100)
    threads: int = Field(ge=1, le=MOST_THREADS)


class Tensor(_Part):
    """Name, type and shape of an input or output of the model."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class StorageVariant(_Part):
    """Candidate with the same low-bit weights in one storage variant, with its measured cost.

    Attributes:
        name: Name of the recipe.
        disk_bytes: File size on the device.
        transfer_bytes: Number of bytes sent.
        encoding: Encoding of the bytes sent.
        source: Where memory and latency were measured: ``host`` or ``device:NAME``; None if they
            were not measured.
        chosen: Whether this bundle holds the variant.
    """

    name: str
    disk_bytes: int
    transfer_bytes: int
    encoding: Literal["raw", "packed"]
    peak_rss_bytes: int | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    source: str | None
    chosen: bool


def _checked_name(name: str) -> str:
    """Check that the bundle's file can bear a name."""
    if not name or "/" in name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise ValueError("not a file name")
    return name


class Manifest(_Part):
    """Manifest of a bundle.

    ``variants`` lists the candidates with the same low-bit weights; without such candidates, only
    the packed one. ``recipe``, ``provenance``, ``measurements`` and ``verdict`` inform the reader;
    nothing on the device depends on them.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    name: Annotated[str, AfterValidator(_checked_name)]
    model: str
    format: Format
    source_digest: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metric: str
    output: str | None
    preprocess: PreprocessSettings | None = None
    runtime: RuntimeUse
    profile: DeviceProfile
    files: tuple[BundledFile, ...]
    golden_samples: str = GOLDEN_SAMPLES
    max_relative_error: float = Field(default=0.1, ge=0, le=MOST_RELATIVE_ERROR)
    recipe: dict[str, Any]
    provenance: dict[str, Any]
    measurements: list[dict[str, Any]]
    verdict: dict[str, Any]
    passes: bool
    variants: tuple[StorageVariant, ...] = ()

    @field_validator("recipe")
    @classmethod
    def _rename_steps(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """Read a recipe of an earlier version under the present names of passes and settings."""
        return rename_stored_recipe(recipe)

    def file(self, name: str) -> BundledFile:
        """Return the entry of a file by its name."""
        return next(f for f in self.files if f.name == name)


def get_release_name(manifest: Manifest) -> str:
    """Return the release name used on devices: the first half of the manifest's digest, in hex."""
    return hashlib.sha256(encode_manifest(manifest)).hexdigest()[:RELEASE_DIGITS]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json."""
    return manifest.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


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
        raise UserError(f"{path}: not a bundle: {reason(error)}", hint=_HINT) from error
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
