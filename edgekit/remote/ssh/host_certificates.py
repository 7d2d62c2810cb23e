"""Host keys signed by a certificate authority (``@cert-authority`` in known_hosts)."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHCertificate

SUFFIX = "-cert-v01@openssh.com"
# The head of a signature with SHA-1, which OpenSSH no longer accepts.
SHA1_SIGNATURE = b"\0\0\0\7ssh-rsa"


@dataclass(frozen=True, kw_only=True)
class HostCertificate:
    """A host certificate with a valid signature.

    Attributes:
        authority: the public key that signed it, encoded as in known_hosts.
        key: the host's own public key.
    """

    authority: bytes
    key: bytes


def read_host_certificate(
    kind: str, blob: bytes, *, host: str, matches: Callable[[str, str], bool]
) -> HostCertificate:
    """Parse a host certificate and check that it is valid now for the name of the host.

    Args:
        kind: the key type that the host announced.
        blob: the certificate.
        host: the name that was connected to, without the port.
        matches: called with a principal of the certificate and the host; True if it names the host.

    Raises:
        ValueError: it is not a valid certificate of that host at this time.
    """
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        SSHCertificateType,
    )

    certificate = _parse_signed(kind, blob)
    if certificate.type != SSHCertificateType.HOST:
        raise ValueError("it is a user certificate, not a host certificate")
    if certificate.critical_options:
        raise ValueError("it has unknown conditions (critical options)")
    if not certificate.valid_after <= time.time() < certificate.valid_before:
        raise ValueError("it has expired or is not valid yet; compare the clocks")
    principals = [p.decode(errors="replace") for p in certificate.valid_principals]
    if not any(matches(p.lower(), host.lower()) for p in principals):
        raise ValueError(f"it is for {', '.join(principals) or 'no host'}, not for {host}")
    keys = (certificate.signature_key(), certificate.public_key())
    authority, key = (
        base64.b64decode(k.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
        for k in keys
    )
    return HostCertificate(authority=authority, key=key)


def _parse_signed(kind: str, blob: bytes) -> SSHCertificate:
    """Parse a certificate and check its authority's signature."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificate,
        load_ssh_public_identity,
    )

    try:
        certificate = load_ssh_public_identity(kind.encode() + b" " + base64.b64encode(blob))
        if not isinstance(certificate, SSHCertificate):
            raise ValueError("it is a plain key")
        certificate.verify_cert_signature()
    except UnsupportedAlgorithm as error:
        raise ValueError(f"its kind is not supported: {error}") from error
    except InvalidSignature as error:
        raise ValueError("its signature is wrong") from error
    authority = certificate.signature_key()
    if isinstance(authority, RSAPublicKey):
        # The signature is the last field: its type, then as many bytes as the key is long.
        tail = blob[-(authority.key_size + 7) // 8 - 4 - len(SHA1_SIGNATURE) :]
        if tail.startswith(SHA1_SIGNATURE):
            raise ValueError("it is signed with SHA-1, which is no longer safe")
    return certificate
