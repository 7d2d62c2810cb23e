"""Formatting of signing keys and trusted keys as text and as plain data."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.signing.keys import DEFAULT_NAME, OwnKey
from edgekit_agent.codec import encode
from edgekit_agent.results import Trust
from edgekit_agent.trust.statements import TrustedKey, key_id


def format_new_key(key: OwnKey) -> str:
    """Format a new key and its next steps."""
    if key.name == DEFAULT_NAME:
        use, choice = "from the next 'edgekit build' on", ""
    else:
        use = f'where edgekit.toml has [release] key = "{key.name}"'
        choice = f" --key {key.name}"
    return (
        f"key {key.name} ({key.id}): {key.path}\n"
        f"  bundles are signed with it {use}; keep a copy in a safe place\n  next: edgekit keys "
        f"trust HOST{choice}"
    )


def format_revocation(key: OwnKey) -> str:
    """Format the revocation of an own key and its next step."""
    return (
        f"key {key.name} ({key.id}) is revoked: builds are no longer signed with it\n  "
        f"devices trust it until you run: edgekit keys revoke {key.name} HOST"
    )


def format_own_keys(keys: Iterable[OwnKey]) -> str:
    """Format a line for each own key."""
    lines = [f"{key.name} ({key.id}): {'revoked' if key.is_revoked else key.path}" for key in keys]
    return "\n".join(lines) or "no keys; 'edgekit keys new' creates one"


def encode_own_keys(keys: Iterable[OwnKey]) -> list[dict[str, object]]:
    """Return own keys as plain data."""
    return [encode_own_key(key) for key in keys]


def encode_own_key(key: OwnKey) -> dict[str, object]:
    """Return an own key as plain data, without the private half."""
    return {
        "name": key.name,
        "id": key.id,
        "public": key.public,
        "path": key.path,
        "revoked": key.is_revoked,
    }


def format_trust(found: Iterable[tuple[str, Trust]]) -> str:
    """Format the trusted keys of each device."""
    return "\n".join(f"{host}: {_describe_trust(trust)}" for host, trust in found)


def encode_trust(found: Iterable[tuple[str, Trust]]) -> list[dict[str, object]]:
    """Return the trusted keys of each device as plain data."""
    return [{"host": host} | encode(trust) for host, trust in found]


def _describe_trust(trust: Trust) -> str:
    if not trust.wants_signature():
        revoked = f", revoked: {_format_keys(trust.revoked)}" if trust.revoked else ""
        return f"trusts no key; accepts every release{revoked}"
    if not trust.keys:
        return f"accepts no release: {_format_keys(trust.revoked)} revoked; trust another key"
    parts = [f"accepts releases signed with {_format_keys(trust.keys)}"]
    if trust.profile:
        parts.append(f"for the device profile {trust.profile}")
    parts.append(f"of version {trust.version} or higher")
    if trust.revoked:
        parts.append(f"revoked: {_format_keys(trust.revoked)}")
    return ", ".join(parts)


def _format_keys(keys: Iterable[TrustedKey]) -> str:
    return ", ".join(f"{key.name or 'unnamed'} ({key_id(key.public)})" for key in keys)
