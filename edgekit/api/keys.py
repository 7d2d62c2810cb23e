"""Keys that sign bundles, and keys that devices trust."""

from __future__ import annotations

from edgekit.api.releases import ask_host
from edgekit.progress import Tick, ignore_progress
from edgekit.remote import trust
from edgekit.remote.home import DEFAULT, Home
from edgekit.signing.keys import OwnKey, find_public_key, make_key, read_own_keys, revoke_own_key
from edgekit_agent.results import Trust
from edgekit_agent.trust.statements import TrustedKey

__all__ = [
    "OwnKey",
    "end_trust",
    "find_public_key",
    "make_key",
    "read_own_keys",
    "read_trust",
    "revoke_key",
    "revoke_own_key",
    "trust_key",
]


def read_trust(host: str, *, home: Home = DEFAULT, progress: Tick = ignore_progress) -> Trust:
    """Read the trusted keys of a device.

    Raises:
        DeviceError: The device cannot be reached, or its file of keys is damaged.
    """
    return ask_host(host, trust.read_trust, home, progress)


def trust_key(
    host: str,
    key: TrustedKey,
    *,
    profile: str | None = None,
    replace: bool = False,
    home: Home = DEFAULT,
    progress: Tick = ignore_progress,
) -> Trust:
    """Trust a key on a device, which then refuses releases of keys that it does not trust.

    Args:
        host: ``local``, an ssh alias, or ``user@host:port``.
        key: The key whose releases the device accepts.
        profile: Name of the only device profile whose releases the device accepts; ``None`` = as
            before.
        replace: Replace a damaged file of keys by a new one.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Raises:
        DeviceError: The device cannot be reached, the key was revoked there, or the device's file
            of keys is damaged.
    """
    return ask_host(
        host,
        lambda session: trust.trust_key(session, key, profile, replace=replace),
        home,
        progress,
    )


def end_trust(host: str, *, home: Home = DEFAULT, progress: Tick = ignore_progress) -> Trust:
    """End the trust of a device in keys, so that it accepts unsigned releases again.

    Raises:
        DeviceError: The device cannot be reached, trusts no key of this user, or its file of keys
            is damaged.
    """
    return ask_host(host, trust.end_trust, home, progress)


def revoke_key(
    host: str, key: str, *, home: Home = DEFAULT, progress: Tick = ignore_progress
) -> Trust:
    """Revoke a key on a device permanently; ``key`` is its name, its id or its hex digits.

    Raises:
        DeviceError: The device cannot be reached, no key or several keys match, or the device's
            file of keys is damaged.
    """
    return ask_host(host, lambda session: trust.revoke_key(session, key), home, progress)
