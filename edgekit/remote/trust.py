"""Trusted keys of a device, and the check of a bundle's signature before anything is sent."""

from __future__ import annotations

from edgekit.bundle.bundle_file import Bundle
from edgekit.bundle.package_file import AppPackage
from edgekit.errors import DeviceError, UserError
from edgekit.remote.session import Session
from edgekit.signing.releases import permit_downgrade, waive_signatures
from edgekit_agent.jobs import AdmitJob, TrustJob, UntrustJob
from edgekit_agent.results import Status, Trust
from edgekit_agent.trust.statements import Signature, TrustedKey, is_public_key, key_id


def request_admission(
    session: Session,
    bundle: Bundle | AppPackage,
    trust: Trust | None,
    *,
    allow_downgrade: bool,
    app: str = "",
) -> Signature | None:
    """Ask a device that trusts keys to admit a bundle.

    Args:
        session: the device.
        bundle: the bundle or the package to install.
        trust: the keys that the device trusts; None = its file of keys is damaged.
        allow_downgrade: sign a permit to install a lower version.
        app: the name that the bundle is installed under; empty = none.

    Returns:
        The permit, if one is needed.

    Raises:
        DeviceError: the device refuses the bundle, or a permit is needed and no key of this user is
            trusted there.
    """
    if trust is not None and not trust.wants_signature():
        return None
    permit = _sign_permit(session, bundle, trust) if allow_downgrade and trust is not None else None
    session.ask(AdmitJob(session.home, bundle.signature, permit, app), Trust)
    return permit


def _sign_permit(session: Session, bundle: Bundle | AppPackage, trust: Trust) -> Signature | None:
    if bundle.signature is None or bundle.statement().version >= trust.version:
        return None
    try:
        return permit_downgrade(bundle.signature, trust)
    except UserError as error:
        raise DeviceError(f"{session.name}: {error.message}", hint=error.hint) from error


def is_installed(bundle: Bundle | AppPackage, before: Status) -> bool:
    """Return whether the device serves the release, equally signed if it wants signatures."""
    served, trust = before.current, before.trust
    if served is None or before.health is None:
        return False
    if trust is not None and not trust.wants_signature():
        return True
    if bundle.signature is None:
        return False
    statement = bundle.statement()
    return (served.key, served.version) == (statement.key, statement.version)


def read_trust(session: Session) -> Trust:
    """Read the trusted keys of a device.

    Raises:
        DeviceError: the device's file of keys is damaged.
    """
    return _ask(session, TrustJob(session.home))


def trust_key(
    session: Session, key: TrustedKey, profile: str | None, *, replace: bool = False
) -> Trust:
    """Trust a key on a device, which then refuses releases of keys that it does not trust.

    Args:
        session: the device.
        key: the key whose releases the device accepts.
        profile: the only device profile whose releases the device accepts; None = as before.
        replace: replace a damaged file of keys by a new one.

    Raises:
        DeviceError: the key was revoked there, or the device's file of keys is damaged.
    """
    return _ask(session, TrustJob(session.home, add=(key,), profile=profile, replace=replace))


def end_trust(session: Session) -> Trust:
    """End the trust of a device in keys, so that it accepts unsigned releases again.

    Raises:
        DeviceError: the device trusts no key of this user, or its file of keys is damaged.
    """
    trust = read_trust(session)
    if not trust.wants_signature():
        return trust
    try:
        waiver = waive_signatures(trust)
    except UserError as error:
        raise DeviceError(f"{session.name}: {error.message}", hint=error.hint) from error
    return _ask(session, UntrustJob(session.home, waiver))


def revoke_key(session: Session, text: str) -> Trust:
    """Revoke a key on a device permanently.

    Args:
        session: the device.
        text: the name, the id or the hex digits of a key that the device trusts.

    Raises:
        DeviceError: no key or several keys match, or the device's file of keys is damaged.
    """
    trust = read_trust(session)
    found = [
        key.public
        for key in (*trust.keys, *trust.revoked)
        if text in (key.name, key.public, key_id(key.public))
    ]
    if len(found) != 1:
        count = f"{len(found)} keys named" if found else "no key named"
        raise DeviceError(
            f"{session.name}: {count} {text} trusted there",
            hint=f"edgekit keys list {session.name} shows the ids of its keys",
        )
    return _ask(session, TrustJob(session.home, revoke=(found[0],)))


def _ask(session: Session, job: TrustJob | UntrustJob) -> Trust:
    trust = session.ask(job, Trust)
    if not all(is_public_key(key.public) for key in (*trust.keys, *trust.revoked)):
        raise DeviceError(f"{session.name}: its list of trusted keys contains an invalid key")
    return trust
