"""Signatures of package files."""

from __future__ import annotations

import hashlib
import os
import time

from edgekit.errors import UserError
from edgekit.signing.keys import OwnKey
from edgekit.signing.releases import sign_statement
from edgekit_agent.apps.package_format import PACKAGE, Package, get_release_name
from edgekit_agent.trust.statements import MOST_TIME_S, Signature, SignedFile, Statement

_VALID_DAYS, _DAY_S = 365, 24 * 3600
# The time of signing for packages with the same bytes: https://reproducible-builds.org/specs/
_EPOCH = "SOURCE_DATE_EPOCH"


def sign_package(key: OwnKey, package: Package, data: bytes, *, profile: str) -> Signature:
    """Sign a package: its name, its release, and its statement, which has all other digests.

    Args:
        key: Key of the user.
        package: The package.
        data: The bytes of ``package.json``.
        profile: Name of the device profile.

    Raises:
        UserError: The environment sets a wrong time of signing.
    """
    now_s, model = _read_time(), package.models[0]
    statement = Statement(
        key=key.public,
        name=package.name,
        release=get_release_name(data),
        version=now_s,
        signed_s=now_s,
        expires_s=min(now_s + _VALID_DAYS * _DAY_S, MOST_TIME_S),
        arch=package.arch,
        profile=profile,
        model=model.name,
        runtime=model.runtime,
        threads=model.threads,
        golden_samples="",
        max_relative_error=0.0,
        files=(SignedFile(PACKAGE, hashlib.sha256(data).hexdigest(), len(data)),),
    )
    return sign_statement(key, statement)


def _read_time() -> int:
    """Return the time of signing in seconds since 1970: now, or as the environment sets it."""
    text = os.environ.get(_EPOCH)
    if text is None:
        return int(time.time())
    if not text.isascii() or not text.isdigit() or int(text) > MOST_TIME_S:
        raise UserError(f"{_EPOCH}: {text!r} is not a time in seconds since 1970")
    return int(text)
