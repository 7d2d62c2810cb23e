"""Verification of signed statements, before they are parsed."""

from __future__ import annotations

from typing import Dict, Iterable, Optional, Type, TypeVar

from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.results import Trust
from edgekit_agent.strictjson import loads
from edgekit_agent.trust.ed25519 import verify
from edgekit_agent.trust.statements import (
    MOST_TIME_S,
    MOST_VERSION,
    Permit,
    Signature,
    Statement,
    TrustedKey,
    Waiver,
    canonical_text,
    digest_of,
    key_id,
)

T = TypeVar("T", Statement, Permit, Waiver)

# First bytes of the signed text, so that a signature of one kind is not valid for another.
_CONTEXTS: Dict[Type[object], bytes] = {
    Statement: b"edgekit release 1\0",
    Permit: b"edgekit downgrade 1\0",
    Waiver: b"edgekit waiver 1\0",
}
MOST_STATEMENT_CHARS = 1 << 17
_NOTHING_CHANGED = "nothing was changed on the device"


def signed_bytes(statement_type: Type[object], text: str) -> bytes:
    """Return the bytes that are signed for a statement of a kind."""
    return _CONTEXTS[statement_type] + text.encode()


def has_valid_signature(statement_type: Type[T], signature: Signature) -> bool:
    """Return whether the signature of a statement is valid under the key that it comes with."""
    try:
        key, mark = bytes.fromhex(signature.key), bytes.fromhex(signature.signature)
        text = signed_bytes(statement_type, signature.statement)
    except ValueError:  # no hex, or text that no encoding can hold
        return False
    return verify(key, text, mark)


def read_statement(statement_type: Type[T], signature: Signature) -> T:
    """Parse a statement whose signature is valid.

    Raises:
        ValueError: it is of another kind, by another key, out of bounds, or not canonical.
    """
    record = decode(statement_type, loads(signature.statement.encode()))
    texts = [canonical_text(record), canonical_text(record, old_names=True)]
    if signature.statement not in texts:
        raise ValueError("not canonical JSON")
    if record.key != signature.key:
        raise ValueError("it names another key")
    _check_bounds(record)
    return record


def _check_bounds(record: object) -> None:
    times = [getattr(record, name, 0) for name in ("signed_s", "expires_s")]
    numbers = [getattr(record, "version", 0)]
    if isinstance(record, Statement):
        numbers += [file.bytes for file in record.files]
    if not all(0 <= number <= MOST_VERSION for number in numbers):
        raise ValueError("a number is out of bounds")
    if not all(0 <= moment <= MOST_TIME_S for moment in times):
        raise ValueError("a time is out of bounds")


def verify_statement(statement_type: Type[T], signature: Signature, trust: Trust) -> T:
    """Verify that a trusted key signed a statement, and return the statement.

    Raises:
        AgentError: ``revoked_key``, ``untrusted_key``, ``bad_signature``.
    """
    if len(signature.statement) > MOST_STATEMENT_CHARS:
        raise _make_refusal(
            "bad_signature", f"its statement is too long: {len(signature.statement)} characters"
        )
    if _has_key(trust.revoked, signature.key):
        raise _make_refusal(
            "revoked_key", f"it is signed with {_describe_key(signature)}, which was revoked"
        )
    if not _has_key(trust.keys, signature.key):
        raise _make_refusal(
            "untrusted_key",
            f"it is signed with {_describe_key(signature)}, which this device does not trust",
        )
    if not has_valid_signature(statement_type, signature):
        raise _make_refusal("bad_signature", "its signature does not match its statement")
    try:
        return read_statement(statement_type, signature)
    except ValueError as error:
        raise _make_refusal("bad_signature", f"its statement cannot be read: {error}") from error


def check_release(
    signature: Signature,
    permit: Optional[Signature],
    trust: Trust,
    *,
    arch: str,
    clock_s: int,
) -> Statement:
    """Check that the device may take a release, and return its signed statement.

    The time is never taken to be before the newest signed time that was seen, because boards
    without a battery start with a clock of years ago.

    Args:
        signature: signature of the release.
        permit: permission to install a lower version.
        trust: keys, version and times known to the device.
        arch: architecture of the programs of the device.
        clock_s: clock of the device, in seconds since 1970.

    Raises:
        AgentError: ``expired``, ``lower_version``, ``wrong_target``, ``bad_permit``; see
            ``verify_statement``.
    """
    statement = verify_statement(Statement, signature, trust)
    _check_target(statement, trust, arch)
    known_s = trust.newest_s
    if permit is not None:
        known_s = _check_permit(permit, signature, trust).signed_s
    elif statement.version < trust.version:
        raise _make_refusal(
            "lower_version",
            f"its version {statement.version} is lower than {trust.version}, which was installed "
            "before",
            "build again, or run 'edgekit push --allow-downgrade' on the machine with the "
            "signing key",
        )
    if statement.expires_s <= max(clock_s, known_s):
        raise _make_refusal(
            "expired", "its signature has expired", "build again for a new signature"
        )
    return statement


def _check_permit(permit: Signature, signature: Signature, trust: Trust) -> Permit:
    allowed = verify_statement(Permit, permit, trust)
    if allowed.nonce != trust.nonce or allowed.statement != digest_of(signature):
        raise _make_refusal(
            "bad_permit", "the permit to install a lower version is for another release"
        )
    return allowed


def _check_target(statement: Statement, trust: Trust, arch: str) -> None:
    if statement.arch != arch:
        raise _make_refusal(
            "wrong_target", f"it is for {statement.arch}, but this device is {arch}"
        )
    if trust.profile not in ("", statement.profile):
        raise _make_refusal(
            "wrong_target",
            f"it is for the device profile {statement.profile[:80]!r}, and this device accepts "
            "only "
            f"releases for {trust.profile!r}",
        )


def _has_key(keys: Iterable[TrustedKey], public: str) -> bool:
    return any(key.public == public for key in keys)


def _describe_key(signature: Signature) -> str:
    try:
        return f"key {key_id(signature.key)}"
    except ValueError:
        return "no key"


def _make_refusal(kind: str, why: str, hint: str = "") -> AgentError:
    return AgentError(kind, f"the release is refused: {why}", hint=f"{hint or _NOTHING_CHANGED}")
