"""Signing of releases, and of permits that a device asks for."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from edgekit.bundle.manifest import MANIFEST, RELEASE_DIGITS, Manifest
from edgekit.config.project import ReleaseTable
from edgekit.errors import UserError
from edgekit.signing.keys import OwnKey, find_signing_key, read_own_keys
from edgekit_agent.results import Trust
from edgekit_agent.trust.signatures import signed_bytes
from edgekit_agent.trust.statements import (
    Permit,
    Signature,
    SignedFile,
    Statement,
    Waiver,
    canonical_text,
    digest_of,
)

_DAY_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signing key with the version and the validity of the releases that it signs.

    Attributes:
        key: Key of the user.
        version: Version of every release; ``None`` = the time of signing in seconds, which always
            increases.
        valid_days: Number of days during which devices accept a release.
    """

    key: OwnKey
    version: int | None
    valid_days: int

    def sign(self, manifest: Manifest, manifest_bytes: bytes) -> Signature:
        """Sign the release of a manifest."""
        now_s = int(time.time())
        digest = hashlib.sha256(manifest_bytes).hexdigest()
        files = [SignedFile(MANIFEST, digest, len(manifest_bytes))]
        files += [SignedFile(f.name, f.digest, f.bytes) for f in manifest.files]
        return sign_statement(
            self.key,
            Statement(
                key=self.key.public,
                name=manifest.name,
                release=digest[:RELEASE_DIGITS],
                version=now_s if self.version is None else self.version,
                signed_s=now_s,
                expires_s=now_s + self.valid_days * _DAY_S,
                arch=manifest.profile.hardware.arch,
                profile=manifest.profile.name,
                model=manifest.model,
                runtime=manifest.runtime.name,
                threads=manifest.runtime.threads,
                golden_samples=manifest.golden_samples,
                max_relative_error=manifest.max_relative_error,
                files=tuple(files),
            ),
        )


def get_signer(settings: ReleaseTable) -> Signer | None:
    """Return the signer of a project; ``None`` if the user has no key.

    Raises:
        UserError: The key that the project names is missing, or a key cannot be used.
    """
    key = find_signing_key(settings.key)
    if key is None:
        return None
    return Signer(key=key, version=settings.version, valid_days=settings.valid_days)


def sign_statement(key: OwnKey, statement: Statement | Permit | Waiver) -> Signature:
    """Sign a statement."""
    text = canonical_text(statement)
    return Signature(key.public, text, key.sign(signed_bytes(type(statement), text)).hex())


def permit_downgrade(signature: Signature, trust: Trust) -> Signature:
    """Sign a permit to install a lower version once, with an own key that the device trusts.

    Raises:
        UserError: The device trusts no key of this user.
    """
    own = _own_trusted(trust, "--allow-downgrade")
    permit = Permit(
        key=own.public,
        statement=digest_of(signature),
        nonce=trust.nonce,
        signed_s=int(time.time()),
    )
    return sign_statement(own, permit)


def waive_signatures(trust: Trust) -> Signature:
    """Sign the permission to take unsigned releases, with an own key that the device trusts.

    Raises:
        UserError: The device trusts no key of this user.
    """
    own = _own_trusted(trust, "keys untrust")
    return sign_statement(own, Waiver(own.public, trust.nonce, int(time.time())))


def _own_trusted(trust: Trust, request: str) -> OwnKey:
    trusted = {key.public for key in trust.keys}
    own = [key for key in read_own_keys() if not key.is_revoked and key.public in trusted]
    if not own:
        raise UserError(
            f"{request}: the device trusts none of your keys",
            hint="run the command on a machine that has a key the device trusts",
        )
    return own[0]
