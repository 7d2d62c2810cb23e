"""Package files of apps, opened on this machine before they are pushed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.manifest import MANIFEST
from edgekit.errors import UserError
from edgekit_agent import strictjson
from edgekit_agent.apps.package_file import ZipPackage, open_package
from edgekit_agent.apps.package_format import PACKAGE, Package, PackageFile
from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.releases.provenance import MOST_MANIFEST_BYTES
from edgekit_agent.trust.signatures import has_valid_signature, read_statement
from edgekit_agent.trust.statements import Signature, Statement

_HINT = "make the file again: edgekit package"


@dataclass(frozen=True, kw_only=True)
class AppPackage:
    """A package file whose members are as its statement says.

    Attributes:
        path: The file.
        package: The statement.
        data: The bytes of the statement, ``package.json``.
        release: Name of its release on devices.
        signature: Signs the statement; None = the package is not signed.
        real_samples: Members with samples of the user's data.
    """

    path: Path
    package: Package
    data: bytes
    release: str
    signature: Signature | None
    real_samples: tuple[str, ...] = ()

    def statement(self) -> Statement:
        """Return the signed statement.

        Raises:
            UserError: The package is not signed, or its signature is invalid.
        """
        if self.signature is None:
            raise UserError(f"{self.path}: not signed")
        if not has_valid_signature(Statement, self.signature):
            raise UserError(
                f"{self.path}: its signature was not created with the key that it names"
            )
        try:
            return read_statement(Statement, self.signature)
        except ValueError as error:
            raise UserError(f"{self.path}: its signature cannot be read: {error}") from error

    def copy_members(self, files: tuple[PackageFile, ...], folder: Path) -> Iterator[Path]:
        """Copy members to a folder, and yield the path of each copy, named by its digest.

        Raises:
            UserError: A member is damaged.
        """
        source = _open(self.path)
        try:
            for file in files:
                target = folder / file.digest
                if not target.exists():
                    source.copy(file, str(target))
                yield target
        except AgentError as error:
            raise UserError(error.failure.message, hint=_HINT) from error
        finally:
            source.close()


def is_package_file(path: Path) -> bool:
    """Return whether a file is a package of an app, by its listing."""
    try:
        if not path.is_file():
            return False
        with zipfile.ZipFile(path) as archive:
            return PACKAGE in archive.NameToInfo
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def open_app_package(path: Path) -> AppPackage:
    """Open a package file and check each of its members.

    Raises:
        UserError: It is damaged.
    """
    source = _open(path)
    try:
        source.verify()
        real_samples = tuple(_iter_real_samples(source))
        data = source.read_signature()
        signature = None if data is None else decode(Signature, strictjson.loads(data))
    except AgentError as error:
        raise UserError(error.failure.message, hint=_HINT) from error
    except ValueError as error:
        raise UserError(f"{path}: damaged: {error}", hint=_HINT) from error
    finally:
        source.close()
    return AppPackage(
        path=path,
        package=source.package,
        data=source.data,
        release=source.release,
        signature=signature,
        real_samples=real_samples,
    )


def _iter_real_samples(source: ZipPackage) -> Iterator[str]:
    """Yield the golden samples of models that were not made up.

    Raises:
        ValueError: The manifest of a model is damaged.
    """
    for model in source.package.models:
        file = source.package.find_file(f"{model.folder}/{MANIFEST}")
        if file is None or file.bytes > MOST_MANIFEST_BYTES:
            raise ValueError(f"{model.folder}/{MANIFEST} is missing or too large")
        manifest = strictjson.loads(b"".join(source.iter_chunks(file)))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("golden_samples"), str):
            raise ValueError(f"{model.folder}/{MANIFEST} names no golden samples")
        if manifest.get("golden_kind") != "synthetic":
            yield f"{model.folder}/{manifest['golden_samples']}"


def _open(path: Path) -> ZipPackage:
    try:
        return open_package(str(path))
    except AgentError as error:
        raise UserError(error.failure.message, hint=_HINT) from error
