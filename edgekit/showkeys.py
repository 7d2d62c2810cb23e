"""Formatting of signing keys and trusted keys as text and as plain data."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.keys import DEFAULT_NAME, OwnKey
from edgekit_agent.codec import encode
from edgekit_agent.results import Trust
from edgekit_agent.statements import TrustedKey, key_id


def made(key: OwnKey) -> str:
    """Format a new key and its next steps."""
    if key.name == DEFAULT_NAME:
        use, choice = "from the next 'edgekit build' on", ""
    else:
        use = f'where edgekit.toml has [release] key = "{key.name}"'
        choice = f" --key {key.name}"
    return (
        f"key {key.name} ({key.id}): {key.path}\n"
        f"  bundles are signed with it {use}; keep a copy in a safe place\n"
        f"  then: edgekit keys trust HOST{choice}"
    )


def revoked(key: OwnKey) -> str:
    """Format the revocation of an own key and its next step."""
    return (
        f"key {key.name} ({key.id}) is revoked: nothing is signed with it any more\n"
        f"  devices go on trusting it until: edgekit keys revoke {key.name} HOST"
    )


def own(keys: Iterable[OwnKey]) -> str:
    """Format a line for each own key."""
    lines = [f"{key.name} ({key.id}): {'revoked' if key.is_revoked else key.path}" for key in keys]
    return "\n".join(lines) or "no keys; 'edgekit keys new' makes one"


def own_facts(keys: Iterable[OwnKey]) -> list[dict[str, object]]:
    """Return own keys as plain data."""
    return [one_facts(key) for key in keys]


def one_facts(key: OwnKey) -> dict[str, object]:
    """Return an own key as plain data, without the private half."""
    return {
        "name": key.name,
        "id": key.id,
        "public": key.public,
        "path": key.path,
        "revoked": key.is_revoked,
    }


def trusted(found: Iterable[tuple[str, Trust]]) -> str:
    """Format the trusted keys of each device."""
    return "\n".join(f"{host}: {_taken(trust)}" for host, trust in found)


def trusted_facts(found: Iterable[tuple[str, Trust]]) -> list[dict[str, object]]:
    """Return the trusted keys of each device as plain data."""
    return [{"host": host} | encode(trust) for host, trust in found]


def _taken(trust: Trust) -> str:
    if not trust.wants_signature():
        revoked = f", revoked: {_named(trust.revoked)}" if trust.revoked else ""
        return f"trusts no key and takes every release{revoked}"
    if not trust.keys:
        return f"takes nothing: {_named(trust.revoked)} revoked; trust another key"
    parts = [f"takes releases signed with {_named(trust.keys)}"]
    if trust.profile:
        parts.append(f"for the device profile {trust.profile}")
    parts.append(f"of version {trust.version} or higher")
    if trust.revoked:
        parts.append(f"revoked: {_named(trust.revoked)}")
    return ", ".join(parts)


def _named(keys: Iterable[TrustedKey]) -> str:
    return ", ".join(f"{key.name or 'unnamed'} ({key_id(key.public)})" for key in keys)
