"""Signing keys of the user: Ed25519, each in a PEM file that only the owner can read."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cache.integrity import get_config_folder
from edgekit.errors import UserError, did_you_mean, reason
from edgekit_agent.files import fsync_folder
from edgekit_agent.trust.ed25519 import is_usable_key
from edgekit_agent.trust.statements import TrustedKey, is_public_key, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DEFAULT_NAME = "default"
_SUFFIX, _PUBLIC_SUFFIX, _REVOKED_SUFFIX = ".pem", ".pub", ".revoked"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class OwnKey:
    """A key pair of the user.

    Attributes:
        public: Public key in hex.
        path: File of the private key.
        is_revoked: Whether the key no longer signs.
    """

    name: str
    public: str
    path: Path
    is_revoked: bool = False

    @property
    def id(self) -> str:
        """Return the short name of the key, the same on every machine."""
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Sign a message."""
        return _read_private(self.path).sign(message)

    def get_trusted_key(self) -> TrustedKey:
        """Return the public half in the form that a device stores."""
        return TrustedKey(self.public, self.name)


def get_keys_folder() -> Path:
    """Return the folder ``keys`` in the user's configuration folder of edgekit."""
    return get_config_folder() / "keys"


def make_key(name: str = DEFAULT_NAME) -> OwnKey:
    """Make a key pair: ``NAME.pem`` for the owner only, and ``NAME.pub`` to hand out.

    Raises:
        UserError: A key of that name exists, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = _get_key_path(name)
    folder = path.parent
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes_raw().hex()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for taken in (path, path.with_suffix(_REVOKED_SUFFIX)):
            if taken.exists():
                raise FileExistsError(taken)
        _write_new(path, text, 0o600)
        path.with_suffix(_PUBLIC_SUFFIX).unlink(missing_ok=True)
        _write_new(path.with_suffix(_PUBLIC_SUFFIX), f"{public} {name}\n".encode(), 0o644)
    except FileExistsError as error:
        raise UserError(
            f"a key named {name} exists already: {path}", hint="choose another name"
        ) from error
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written: {reason(error)}",
            hint="set EDGEKIT_CONFIG to use another folder for keys",
        ) from error
    return OwnKey(name=name, public=public, path=path)


def read_own_keys() -> list[OwnKey]:
    """Read every key of the user, sorted by name, including revoked ones.

    Raises:
        UserError: A key is damaged, or others can read it.
    """
    folder = get_keys_folder()
    if not folder.is_dir():
        return []
    paths = sorted(p for p in folder.iterdir() if p.suffix in (_SUFFIX, _REVOKED_SUFFIX))
    return [_read_own(path) for path in paths if _NAME.fullmatch(path.stem)]


def find_signing_key(name: str | None) -> OwnKey | None:
    """Find the key to sign bundles with: the named one, else ``default`` if it exists.

    Raises:
        UserError: There is no key of that name, it was revoked, or it cannot be used.
    """
    path = _get_key_path(name or DEFAULT_NAME)
    if path.exists():
        return _read_own(path)
    if name is None:
        return None
    if path.with_suffix(_REVOKED_SUFFIX).exists():
        raise UserError(f"key {name} was revoked", hint="create another one: edgekit keys new NAME")
    near = did_you_mean(name, [key.name for key in read_own_keys()])
    raise UserError(
        f"no key named {name} in {path.parent}{near}", hint=f"create it: edgekit keys new {name}"
    )


def revoke_own_key(name: str) -> OwnKey:
    """Revoke a key of the user: it no longer signs.

    Raises:
        UserError: There is no such key.
    """
    key = find_signing_key(name)
    if key is None:
        raise UserError(f"no key named {name} in {get_keys_folder()}")
    path = key.path.with_suffix(_REVOKED_SUFFIX)
    key.path.rename(path)
    fsync_folder(str(path.parent))
    return OwnKey(name=key.name, public=key.public, path=path, is_revoked=True)


def find_public_key(text: str | None) -> TrustedKey:
    """Find a public key by the name of an own key, a ``.pub`` file or 64 hex digits.

    Raises:
        UserError: The text is none of these, or the key is not usable.
    """
    if text and is_public_key(text):
        return _check_usable(TrustedKey(text), text)
    if text and (text.endswith(_PUBLIC_SUFFIX) or os.sep in text):
        return _read_public(Path(text))
    key = find_signing_key(text or DEFAULT_NAME)
    if key is None:
        raise UserError("there is no key yet", hint="create one: edgekit keys new")
    return key.get_trusted_key()


def _read_public(path: Path) -> TrustedKey:
    try:
        with path.open("rb") as file:
            words = file.read(_MOST_BYTES).decode().split()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}") from error
    if not words or not is_public_key(words[0]):
        raise UserError(
            f"{path}: not a public key of edgekit",
            hint="give a .pub file that 'edgekit keys new' wrote",
        )
    name = words[1] if len(words) > 1 and _NAME.fullmatch(words[1]) else ""
    return _check_usable(TrustedKey(words[0], name), str(path))


def _check_usable(key: TrustedKey, where: str) -> TrustedKey:
    if not is_usable_key(bytes.fromhex(key.public)):
        raise UserError(f"{where}: not a secure Ed25519 public key, as anybody could sign for it")
    return key


def _get_key_path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"not a key name: {name!r}", hint="use at most 63 lower-case letters, digits, - and _"
        )
    return get_keys_folder() / f"{name}{_SUFFIX}"


def _read_own(path: Path) -> OwnKey:
    public = _read_private(path).public_key().public_bytes_raw().hex()
    revoked = path.suffix == _REVOKED_SUFFIX
    return OwnKey(name=path.stem, public=public, path=path, is_revoked=revoked)


def _read_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_MOST_BYTES)
        key = load_pem_private_key(text, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: not a private key: {reason(error)}") from error
    if mode & 0o077:
        raise UserError(f"{path}: other users can read this private key", hint=f"chmod 600 {path}")
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path}: not an Ed25519 key", hint="create one: edgekit keys new")
    return key


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist yet, with exactly these permissions."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(str(path.parent))
