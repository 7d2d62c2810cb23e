"""Check of host keys against ``known_hosts`` files, by the rules of OpenSSH."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DeviceError
from edgekit.remote.ssh.host_certificates import SUFFIX as CERTIFICATE_SUFFIX
from edgekit.remote.ssh.host_certificates import read_host_certificate

CERTIFICATE_KINDS = tuple(
    f"{kind}{CERTIFICATE_SUFFIX}"
    for kind in (
        "ssh-ed25519",
        *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)),
        "rsa-sha2-512",
        "rsa-sha2-256",
    )
)


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """A public key of a host: presented by it or listed in known_hosts."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """Return key type and SHA-256 fingerprint, as ``ssh-keygen -l`` prints them."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"{self.kind} SHA256:{digest.rstrip('=')}"


@dataclass(frozen=True, kw_only=True)
class KnownKey:
    """One line of a known_hosts file that matches the host."""

    key: HostKey
    marker: str  # "", "@revoked" or "@cert-authority"
    file: Path
    line: int


@dataclass(frozen=True, kw_only=True)
class Address:
    """Name and port under which known_hosts lists a host.

    Attributes:
        alias: HostKeyAlias; if set, known_hosts is searched for it without the port.
        proxied: the host is reached through a jump host or a proxy command.
    """

    host: str
    port: int
    alias: str = ""
    proxied: bool = False

    @property
    def name(self) -> str:
        """Return the name in known_hosts: the alias, the host, or ``[host]:port``."""
        if self.alias:
            return self.alias
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    @property
    def plain_name(self) -> str:
        """Return the name without the port; OpenSSH uses it if no key is listed with the port."""
        return self.alias or self.host


def read_known_keys(files: Sequence[Path], name: str) -> tuple[KnownKey, ...]:
    """Return all lines of known_hosts files that match a host; a missing file counts as empty.

    Args:
        files: known_hosts files.
        name: ``Address.name`` or ``Address.plain_name`` of the host.

    Raises:
        DeviceError: a file cannot be read.
    """
    found: list[KnownKey] = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise DeviceError(f"{file}: cannot read known hosts: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            known = _parse(line, name.lower(), file, number)
            if known is not None:
                found.append(known)
    return tuple(found)


def _parse(line: str, name: str, file: Path, number: int) -> KnownKey | None:
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    # A damaged line is skipped, as in OpenSSH: the rest of the file must stay usable.
    if len(fields) < 3 or fields[0].startswith("#") or not _matches_host(fields[0], name):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return None
    return KnownKey(key=HostKey(kind=fields[1], blob=blob), marker=marker, file=file, line=number)


def _matches_host(field: str, name: str) -> bool:
    if field.startswith("|1|"):
        return _matches_hashed_name(field, name)
    patterns = field.lower().split(",")
    if any(p.startswith("!") and _matches_pattern(p[1:], name) for p in patterns):
        return False
    return any(_matches_pattern(p, name) for p in patterns if not p.startswith("!"))


def _matches_hashed_name(field: str, name: str) -> bool:
    parts = field.split("|")
    if len(parts) != 4:
        return False
    try:
        salt, expected = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), expected)


def _matches_pattern(pattern: str, name: str) -> bool:
    # fnmatch would read the brackets of [host]:port as a set of letters.
    parts = re.split(r"([*?])", pattern)
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(p, re.escape(p)) for p in parts), name) is not None


def find_preferred_kinds(files: Sequence[Path], address: Address) -> tuple[str, ...]:
    """Return the key types that known_hosts lists for a host; the negotiation prefers them."""
    for name in (address.name, address.plain_name):
        known = read_known_keys(files, name)
        certified = any(k.marker == "@cert-authority" for k in known)
        kinds = [k.key.kind for k in known if not k.marker]
        if kinds or certified:
            return (*(CERTIFICATE_KINDS if certified else ()), *dict.fromkeys(kinds))
    return ()


def check_host_key(host: str, shown: HostKey, address: Address, files: Sequence[Path]) -> None:
    """Check that the key which a host presented is its known key.

    Args:
        host: the host as the user named it, for the message.
        shown: the key or certificate that the host presented.
        address: the name and port of the host.
        files: known_hosts files; the hint adds a new key to the first one.

    Raises:
        DeviceError: the key is unknown, changed or revoked, or its certificate is not valid.
    """
    known = read_known_keys(files, address.name)
    everywhere = (*known, *read_known_keys(files, address.plain_name))
    shown, authority = _unwrap_certificate(host, shown, address, everywhere)
    for entry in everywhere:
        if entry.marker == "@revoked" and entry.key.blob in (shown.blob, authority):
            raise DeviceError(
                f"{host}: refused: its host key {shown.fingerprint} is marked @revoked",
                hint=f"see {entry.file}:{entry.line}; do not trust a host with this key",
            )
    if authority:
        return
    exact = [e for e in known if not e.marker]
    if any(e.key.blob == shown.blob for e in exact or everywhere if not e.marker):
        return
    if exact:
        raise _make_changed_key_error(host, shown, address, exact)
    raise _make_unknown_key_error(host, shown, address, files, by_authority=bool(known))


def _unwrap_certificate(
    host: str, shown: HostKey, address: Address, known: Sequence[KnownKey]
) -> tuple[HostKey, bytes]:
    """Return the host's plain key and the trusted authority that signed it; empty if none did."""
    if not shown.kind.endswith(CERTIFICATE_SUFFIX):
        return shown, b""
    try:
        certificate = read_host_certificate(
            shown.kind, shown.blob, host=address.plain_name, matches=_matches_pattern
        )
    except ValueError as error:
        raise DeviceError(
            f"{host}: refused: its host certificate is not valid: {error}",
            hint="have the authority sign the device's host key again (ssh-keygen -h)",
        ) from error
    plain = HostKey(kind=shown.kind.removesuffix(CERTIFICATE_SUFFIX), blob=certificate.key)
    authorities = [e.key.blob for e in known if e.marker == "@cert-authority"]
    return plain, certificate.authority if certificate.authority in authorities else b""


def _make_changed_key_error(
    host: str, shown: HostKey, address: Address, known: Sequence[KnownKey]
) -> DeviceError:
    same_kind = [e for e in known if e.key.kind == shown.kind]
    entry = (same_kind or list(known))[0]
    return DeviceError(
        f"{host}: refused: its host key has changed: known {entry.key.fingerprint} "
        f"({entry.file}:{entry.line}), now {shown.fingerprint}",
        hint="the connection may be intercepted. If the device was set up again, compare the "
        f"fingerprint on the device, then remove the old key: ssh-keygen -R '{address.name}' -f "
        f"'{entry.file}'",
    )


def _make_unknown_key_error(
    host: str, shown: HostKey, address: Address, files: Sequence[Path], *, by_authority: bool
) -> DeviceError:
    file = files[0] if files else Path("~/.ssh/known_hosts").expanduser()
    kind = shown.kind.removeprefix("ssh-").split("-")[0]
    # ssh-keyscan cannot use a jump host, and stores no key under an alias.
    accept = (
        f"ssh -o HostKeyAlgorithms={shown.kind} {host}"
        if address.alias or address.proxied
        else f"mkdir -p {file.parent}; "
        f"ssh-keyscan -p {address.port} -t {kind} {address.host} >> {file}"
    )
    why = (
        "known only through a certificate authority, but not signed by it"
        if by_authority
        else "unknown"
    )
    return DeviceError(
        f"{host}: refused: its host key is {why}: {shown.fingerprint}",
        hint="compare it with the device's (there: ssh-keygen -lf /etc/ssh/ssh_host_"
        f"{kind}_key.pub), then accept it: {accept}",
    )
