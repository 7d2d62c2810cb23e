"""A certificate authority of the user's own, which signs the certificates of local servers.

Browsers give camera, microphone and offline use to pages by https alone. The authority can sign
for local names and private addresses only, so that a stolen key opens nothing else.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit.errors import UserError
from edgekit_agent.files import write_atomic

_FOLDER, _KEY, _CERTIFICATE = "web", "ca.key", "ca.crt"
_AUTHORITY_DAYS = 3650
# iPadOS refuses server certificates that are valid for longer than 825 days.
_SERVER_DAYS = 397
_PRIVATE = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
    *("127.0.0.0/8", "::1/128", "fc00::/7", "fe80::/10"),
)
_LOCAL = ("localhost", "local", "lan", "internal", "home.arpa")


@dataclass(frozen=True)
class Authority:
    """A certificate authority.

    Attributes:
        certificate: Its certificate, which tablets have to trust, in PEM form.
        fingerprint: SHA-256 of the certificate, to compare by eye.
        path: The file of the certificate.
    """

    certificate: bytes
    fingerprint: str
    path: Path
    _key: ec.EllipticCurvePrivateKey

    def make_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """Return the settings of a server with a new certificate for its names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._sign(key, names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder) / "chain.pem"
            chain.touch(mode=0o600)
            chain.write_bytes(_encode_key(key) + signed + self.certificate)
            context.load_cert_chain(chain)
        return context

    def _sign(self, key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
        issuer = x509.load_pem_x509_certificate(self.certificate)
        begin, end = _get_period(_SERVER_DAYS)
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        built = (
            x509.CertificateBuilder()
            .subject_name(_make_name(names[0]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(min(end, issuer.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(list(map(_to_san, names))), critical=False)
            .add_extension(usages, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return built.public_bytes(serialization.Encoding.PEM)


def open_authority(config: Path) -> Authority:
    """Return the user's authority; it is created when it is missing or has expired.

    Args:
        config: Folder of the user's settings.

    Raises:
        UserError: Its files are damaged.
    """
    folder = config / _FOLDER
    paths = folder / _KEY, folder / _CERTIFICATE
    if not all(path.is_file() for path in paths):
        return _create(folder)
    try:
        key = serialization.load_pem_private_key(paths[0].read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(paths[1].read_bytes())
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: the own certificate authority is damaged: {error}",
            hint="remove the folder; tablets then have to trust the new certificate",
        ) from error
    now = datetime.datetime.now(datetime.UTC)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.not_valid_after_utc < now:
        return _create(folder)
    return _make_authority(key, certificate, paths[1])


def _create(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _make_name(f"edgekit on {socket.gethostname()[:40]}")
    begin, end = _get_period(_AUTHORITY_DAYS)
    allowed: list[x509.GeneralName] = [x509.DNSName(each) for each in _list_local_names()]
    allowed += [x509.IPAddress(ipaddress.ip_network(each)) for each in _PRIVATE]
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.NameConstraints(allowed, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(str(folder / _KEY), _encode_key(key), is_private=True)
    encoded = certificate.public_bytes(serialization.Encoding.PEM)
    write_atomic(str(folder / _CERTIFICATE), encoded)
    return _make_authority(key, certificate, folder / _CERTIFICATE)


def _make_authority(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, path: Path
) -> Authority:
    digest = certificate.fingerprint(hashes.SHA256()).hex().upper()
    fingerprint = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), fingerprint, path, key)


def list_own_addresses() -> tuple[str, ...]:
    """Return the names and addresses by which computers in the local network reach this one."""
    found: list[str] = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # sends nothing; chooses the address of the way out
                found.append(probe.getsockname()[0])
        except OSError:
            continue
    addresses = [each for each in found if _is_private(each)]
    return (*addresses, f"{_get_host_label()}.local")


def _is_private(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not parsed.is_loopback and any(parsed in ipaddress.ip_network(n) for n in _PRIVATE)


def _list_local_names() -> tuple[str, ...]:
    return (*_LOCAL, _get_host_label())


def _get_host_label() -> str:
    """Return the first label of this computer's name."""
    label = socket.gethostname().partition(".")[0].lower()
    plain = "".join(c for c in label if c.isascii() and (c.isalnum() or c == "-")).strip("-")
    return plain[:63] or "localhost"


def _to_san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _make_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _get_period(days: int) -> tuple[datetime.datetime, datetime.datetime]:
    """Return the first and the last moment of validity; clocks of tablets may be a day behind."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return now - datetime.timedelta(days=1), now + datetime.timedelta(days=days - 1)


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
