"""SSH keys and certificates, in the order in which OpenSSH offers them."""

from __future__ import annotations

import contextlib
import copy
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.pkey import PublicBlob

from edgekit.errors import reason
from edgekit.remote.ssh.host_settings import HostSettings

AGENT_TIMEOUT_S = 60.0
CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A key to log in with, which may carry a certificate, and its name in messages."""

    name: str
    key: paramiko.PKey


@dataclass(frozen=True, kw_only=True)
class _KeyFiles:
    """Cache of private key files; ``tried`` collects unusable ones with the reason."""

    tried: list[str]
    loaded: dict[Path, paramiko.PKey | None] = field(default_factory=dict)

    def load(self, file: Path) -> paramiko.PKey | None:
        if file not in self.loaded:
            self.loaded[file] = self._load(file) if file.exists() else None
        return self.loaded[file]

    def _load(self, file: Path) -> paramiko.PKey | None:
        try:
            key = paramiko.PKey.from_path(file)
        except (TypeError, paramiko.PasswordRequiredException):
            self.tried.append(f"{file} (has a passphrase: ssh-add it first)")
            return None
        except (OSError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
            self.tried.append(f"{file} (cannot be read: {reason(error)})")
            return None
        key.public_blob = None  # paramiko also loads a certificate next to it
        return key


def iter_identities(
    settings: HostSettings, tried: list[str], closing: contextlib.ExitStack
) -> Iterator[Identity]:
    """Yield keys in OpenSSH's order: certificates, agent keys with files, other agent keys, files.

    Args:
        settings: the SSH settings of the host.
        tried: a list to which unusable keys are added, with the reason.
        closing: the stack that closes the connection to the SSH agent.
    """
    held = _load_agent_keys(settings.identity_agent, tried, closing)
    files = _KeyFiles(tried=tried)
    for file in settings.certificate_files:
        yield from _load_certificate(file, held, settings.identity_files, files)
    named: dict[bytes, Path] = {}
    for file in settings.identity_files:
        for public in (Path(f"{file}.pub"), Path(f"{file}-cert.pub")):
            blob = _read_public_blob(public)
            if blob is not None:
                named[blob.key_blob] = file
    yield from (
        Identity(name=f"{named[_get_key_blob(k)]} (agent)", key=k)
        for k in held
        if _get_key_blob(k) in named
    )
    if not settings.identities_only:
        yield from (
            Identity(name=f"agent key {k.comment}", key=k)
            for k in held
            if _get_key_blob(k) not in named
        )
    offered = {_get_key_blob(k) for k in held}
    public_of = {file: blob for blob, file in named.items()}
    for file in settings.identity_files:
        yield from _load_file(file, files, offered, public_of.get(file, b""))


def _load_file(
    file: Path, files: _KeyFiles, offered: set[bytes], public: bytes
) -> Iterator[Identity]:
    """Yield the key in a file unless the agent offered it, then the certificate beside it."""
    beside = _read_public_blob(Path(f"{file}-cert.pub"))
    wanted = beside is not None and beside.key_blob not in offered
    plain = _read_public_blob(Path(f"{file}.pub"))
    known = plain is not None and plain.key_blob in offered
    if known and not wanted:
        return
    key = files.load(file)
    if key is None:
        return
    if key.asbytes() not in offered:
        yield Identity(name=str(file), key=key)
    if beside is not None and wanted and _extract_public_key(beside) == key.asbytes():
        yield Identity(name=f"{file}-cert.pub", key=_add_certificate(key, beside))


def _load_certificate(
    file: Path, held: tuple[paramiko.AgentKey, ...], keys: tuple[Path, ...], files: _KeyFiles
) -> Iterator[Identity]:
    """Yield a ``CertificateFile`` with its private key from the SSH agent or a file."""
    certificate = _read_public_blob(file)
    if certificate is None or not certificate.key_type.endswith(CERTIFICATE_SUFFIX):
        why = "is not a certificate" if file.exists() else "does not exist"
        files.tried.append(f"{file} ({why})")
        return
    wanted = _extract_public_key(certificate)
    key: paramiko.PKey | None = next((k for k in held if _get_key_blob(k) == wanted), None)
    if key is None:
        loaded = (files.load(k) for k in keys if _may_match(k, wanted))
        key = next((k for k in loaded if k is not None and k.asbytes() == wanted), None)
    if key is None:
        files.tried.append(
            f"{file} (its private key is neither in an IdentityFile nor in the agent)"
        )
        return
    yield Identity(name=str(file), key=_add_certificate(key, certificate))


def _may_match(file: Path, blob: bytes) -> bool:
    public = _read_public_blob(Path(f"{file}.pub"))
    return public is None or public.key_blob == blob


def _add_certificate(key: paramiko.PKey, certificate: PublicBlob) -> paramiko.PKey:
    certified = (
        paramiko.AgentKey(key.agent, key.blob, key.comment)
        if isinstance(key, paramiko.AgentKey)
        else copy.copy(key)
    )
    certified.public_blob = certificate
    return certified


def _extract_public_key(certificate: PublicBlob) -> bytes:
    """Return the public key inside a certificate; empty if its type is unknown."""
    try:
        kind = certificate.key_type.removesuffix(CERTIFICATE_SUFFIX)
        key = paramiko.PKey.from_type_string(kind, certificate.key_blob)
        return bytes(key.asbytes())
    except (paramiko.SSHException, paramiko.UnknownKeyType, ValueError):
        return b""


def _get_key_blob(key: paramiko.PKey) -> bytes:
    return bytes(key.public_blob.key_blob if key.public_blob else key.asbytes())


def _load_agent_keys(
    path: str | None, tried: list[str], closing: contextlib.ExitStack
) -> tuple[paramiko.AgentKey, ...]:
    if path is None:
        return ()
    agent = AgentSSH()
    try:
        conn = closing.enter_context(socket.socket(socket.AF_UNIX))
        conn.settimeout(AGENT_TIMEOUT_S)
        conn.connect(path)
        agent._connect(conn)
    except (OSError, paramiko.SSHException) as error:
        tried.append(f"agent {path} (no answer: {error})")
    keys = tuple(agent.get_keys())
    for key in keys:
        if key.name.endswith(CERTIFICATE_SUFFIX):
            # Offer the certificate: paramiko would offer, and sign with, the plain key.
            key.public_blob, key.inner_key = PublicBlob(key.name, key.blob), None
    return keys


def _read_public_blob(file: Path) -> PublicBlob | None:
    try:
        return PublicBlob.from_file(str(file))
    # A key without a readable .pub file is only known once it is loaded.
    except (OSError, ValueError, IndexError, paramiko.SSHException):
        return None
