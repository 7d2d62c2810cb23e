"""Signed statements: the facts by which a device accepts or refuses a release.

A statement is signed as text, and parsed only after its signature was verified. The text is
canonical JSON (sorted keys, no spaces, ASCII), so that the same facts always give the same text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Tuple

from edgekit_agent.protocol import encode_old, mark_old_name

_PUBLIC = re.compile(r"[0-9a-f]{64}")
# The largest integer that every JSON parser holds exactly.
MOST_VERSION = 2**53 - 1
# The end of the year 9999.
MOST_TIME_S = 253402300799


@dataclass(frozen=True)
class TrustedKey:
    """A public key in hex, and the name that its owner gave it."""

    public: str
    name: str = ""


@dataclass(frozen=True)
class Signature:
    """A statement as text, the public key that signed it, and the Ed25519 signature, in hex."""

    key: str
    statement: str
    signature: str


@dataclass(frozen=True)
class SignedFile:
    """A file of a release."""

    name: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class Statement:
    """The signed facts of a release.

    Attributes:
        key: the public key in hex.
        name: of the bundle.
        release: its name on devices: the first digits of the manifest's digest.
        version: never falls from one release of a device to the next.
        signed_s: time of signing, in seconds since 1970 (UTC).
        expires_s: devices refuse it from this time on, in the same unit.
        arch: architecture of the programs of the device.
        profile: the device profile that it was built for.
        golden_samples: the file of golden samples.
        files: every file, the manifest among them.
    """

    key: str
    name: str
    release: str
    version: int
    signed_s: int
    expires_s: int
    arch: str
    profile: str
    model: str
    runtime: str
    threads: int
    golden_samples: str = field(metadata=mark_old_name("canaries"))
    max_relative_error: float
    files: Tuple[SignedFile, ...]


@dataclass(frozen=True)
class Permit:
    """Permission to install a lower version once.

    Attributes:
        key: the public key in hex.
        statement: sha256 of the statement of the release, in hex.
        nonce: random number from the device; it changes with every release and permit.
        signed_s: time of signing, in seconds since 1970 (UTC).
    """

    key: str
    statement: str
    nonce: str
    signed_s: int


@dataclass(frozen=True)
class Waiver:
    """Permission to take unsigned releases from now on.

    Attributes:
        key: the public key in hex.
        nonce: random number from the device; it changes, so that a waiver is valid once.
        signed_s: time of signing, in seconds since 1970 (UTC).
    """

    key: str
    nonce: str
    signed_s: int


def canonical_text(record: Any, *, old_names: bool = False) -> str:  # noqa: ANN401 - any record
    """Convert a record to canonical JSON, with the names of fields of now or of protocol 1.0."""
    values = encode_old(record) if old_names else dataclasses.asdict(record)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(signature: Signature) -> str:
    """Return the sha256 of a statement's text, in hex."""
    return hashlib.sha256(signature.statement.encode()).hexdigest()


def is_public_key(text: str) -> bool:
    """Return whether a text has the form of a public key in hex."""
    return _PUBLIC.fullmatch(text) is not None


def key_id(public: str) -> str:
    """Return the short name of a public key: the first 16 digits of its sha256."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]
