"""Trusted keys of a device, kept in a file of its home and a copy, and the checks against them."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import struct
import time
from dataclasses import replace
from typing import Iterable, Optional, Tuple

from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_regular, write_atomic
from edgekit_agent.jobs import AdmitJob, InstallJob, TrustJob, UntrustJob
from edgekit_agent.measure.cpu import userland
from edgekit_agent.releases.audit import add_line
from edgekit_agent.releases.homes import Home, open_home
from edgekit_agent.releases.store import lock_home, lock_main
from edgekit_agent.results import AppVersion, Trust
from edgekit_agent.strictjson import load
from edgekit_agent.trust.ed25519 import is_usable_key
from edgekit_agent.trust.signatures import check_release, verify_statement
from edgekit_agent.trust.statements import (
    Permit,
    Signature,
    Statement,
    TrustedKey,
    Waiver,
    is_public_key,
    key_id,
)

TRUST, COPY = "trust.json", "trust.copy.json"
_MOST_KEYS = 64
_MOST_VERSIONS = 1000
_MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}|")
_PROFILE = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}|")


def read_trust(home: Home) -> Trust:
    """Read the trusted keys of the device, from the copy if the file is damaged or missing.

    Returns:
        The keys, with the version of the home's own name; no keys if there is neither file nor
        copy yet.

    Raises:
        AgentError: ``damaged_trust``: neither is intact, so that nothing may be installed.
    """
    damage = ""
    for name in (TRUST, COPY):
        path = os.path.join(home.main_path, name)
        try:
            trust = _read_keys(path)
            return replace(trust, version=_get_version(trust, home.app)) if home.app else trust
        except FileNotFoundError:
            continue
        except ValueError as error:
            damage = damage or f"{path}: damaged: {error}"
    if not damage:
        return Trust()
    raise AgentError(
        "damaged_trust",
        damage,
        hint="the device accepts no release until you run 'edgekit keys trust HOST --replace'; "
        "that forgets revoked keys, versions and the time, so revoke those keys again",
    )


def _read_keys(path: str) -> Trust:
    """Read a file of keys.

    Raises:
        OSError: it does not exist, or may not be read.
        ValueError: it is damaged.
    """
    try:
        with open_regular(path) as file:
            return _check_trust(decode(Trust, load(file, _MOST_BYTES)))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise ValueError(error.strerror) from error


def try_read_trust(home: Home) -> Optional[Trust]:
    """Read the trusted keys of the device; ``None`` if the file and its copy are damaged."""
    try:
        return read_trust(home)
    except AgentError:
        return None


def admit(job: AdmitJob) -> Trust:
    """Check that the device would take a release; nothing is changed.

    Raises:
        AgentError: it would not; see ``check_admission``.
    """
    trust = read_trust(open_home(job.home, job.app))
    check_admission(trust, job.signature, job.permit)
    return trust


def check_admission(
    trust: Trust, signature: Optional[Signature], permit: Optional[Signature]
) -> Optional[Statement]:
    """Check that the device takes a release; return its statement if it has to be signed.

    Raises:
        AgentError: ``unsigned``; see ``check_release``.
    """
    if not trust.wants_signature():
        return None
    if signature is None:
        raise AgentError(
            "unsigned",
            "the release is refused: it is not signed, and this device accepts only signed "
            "releases",
            hint="run 'edgekit keys new', build again, and let the device trust that key "
            "('edgekit keys trust')",
        )
    arch = userland(platform.machine(), struct.calcsize("P") * 8)
    return check_release(signature, permit, trust, arch=arch, clock_s=int(time.time()))


def check_as_signed(job: InstallJob, statement: Statement) -> None:
    """Check that a job installs exactly the signed release.

    Raises:
        AgentError: ``not_as_signed``.
    """
    pairs = {
        "release": (job.release, statement.release),
        "model": (job.model, statement.model),
        "runtime": (job.runtime, statement.runtime),
        "threads": (job.threads, statement.threads),
        "golden samples": (job.golden_samples, statement.golden_samples),
        "tolerance": (job.max_relative_error, statement.max_relative_error),
        "files": (
            sorted((file.name, file.digest) for file in job.files),
            sorted((file.name, file.digest) for file in statement.files),
        ),
    }
    wrong = [name for name, (requested, signed) in pairs.items() if requested != signed]
    if wrong:
        raise AgentError(
            "not_as_signed",
            f"the release is refused: it differs from the signed one: {', '.join(wrong)}",
            hint="build again; nothing was changed on the device",
        )


def record_release(
    home: Home, statement: Statement, signature: Optional[Signature], permit: Optional[Signature]
) -> None:
    """Record the version and the time of a release that is about to be served.

    With a permit to install a lower version, that version and the permit's time count from now
    on, so that a version or a time that was far too high can be corrected.

    Raises:
        AgentError: of a named home: the keys have changed since ``check_admission``; see there.
    """
    with lock_main(home):
        trust = read_trust(home)
        if home.app:
            check_admission(trust, signature, permit)
        version = max(trust.version, statement.version)
        newest_s = max(trust.newest_s, statement.signed_s)
        if permit is not None:
            version = statement.version
            newest_s = verify_statement(Permit, permit, trust).signed_s
        main = Home(home.main_path)
        stored = _set_version(read_trust(main), home.app, version)
        _write_trust(main, replace(stored, newest_s=newest_s, nonce=secrets.token_hex(16)))


def _get_version(trust: Trust, app: str) -> int:
    return next((each.version for each in trust.app_versions if each.app == app), 0)


def _set_version(trust: Trust, app: str, version: int) -> Trust:
    """Return the keys with the highest version under a name, or of the main home."""
    if not app:
        return replace(trust, version=version)
    others = [each for each in trust.app_versions if each.app != app]
    if len(others) >= _MOST_VERSIONS:
        raise AgentError(
            "too_many_names",
            f"the device has seen signed releases under {_MOST_VERSIONS} names already",
            hint="use one of these names again",
        )
    found = sorted([*others, AppVersion(app, version)], key=lambda each: each.app)
    return replace(trust, app_versions=tuple(found))


def change_trust(job: TrustJob) -> Trust:
    """Trust and revoke keys, and bind to a device profile; without changes, report the keys.

    Raises:
        AgentError: ``bad_job``, ``revoked_key``, ``unknown_key``; ``damaged_trust`` unless the job
            replaces the damaged files.
    """
    home = open_home(job.home)
    if not job.add and not job.revoke and job.profile is None:
        return read_trust(home)
    for key in job.add:
        _check_key(key)
    with lock_home(home):
        trust = _apply_changes(_read_trust_to_change(home, job), job)
        _write_trust(home, trust)
    return trust


def end_trust(job: UntrustJob) -> Trust:
    """Remove all trusted keys and take unsigned releases, if the owner of a trusted key permits it.

    Revoked keys stay revoked, and the highest version counts again once another key is trusted.

    Raises:
        AgentError: ``bad_permit``, ``damaged_trust``; see ``verify_statement``.
    """
    home = open_home(job.home)
    with lock_home(home):
        trust = read_trust(home)
        waiver = verify_statement(Waiver, job.waiver, trust)
        if not trust.nonce or waiver.nonce != trust.nonce:
            raise AgentError(
                "bad_permit",
                "the permission to accept unsigned releases has expired, or the clocks differ",
                hint="run 'edgekit keys untrust' again; nothing was changed on the device",
            )
        ended = replace(trust, keys=(), nonce=secrets.token_hex(16), takes_unsigned=True)
        _write_trust(home, ended)
    return ended


def check_not_revoked(trust: Optional[Trust], key: str) -> None:
    """Check that the key of a release that was taken before has not been revoked since.

    A damaged file of keys does not keep a device from going back.

    Raises:
        AgentError: ``revoked_key``.
    """
    if trust is not None and any(revoked_key.public == key for revoked_key in trust.revoked):
        raise AgentError(
            "revoked_key",
            f"the release is signed with key {key_id(key)}, which has been revoked",
            hint="nothing was changed on the device; push a release of a trusted key",
        )


def _read_trust_to_change(home: Home, job: TrustJob) -> Trust:
    try:
        return read_trust(home)
    except AgentError as error:
        if not (job.replace and job.add):
            raise
        lost = "revoked keys, versions and the time were forgotten"
        add_line(home, "replace keys", f"done: {lost}: {error.failure.message}")
        return Trust()  # the job adds the keys again


def _apply_changes(trust: Trust, job: TrustJob) -> Trust:
    revoked = {key.public for key in trust.revoked}
    for key in job.add:
        if key.public in revoked:
            raise AgentError(
                "revoked_key",
                f"key {key_id(key.public)} was revoked on this device and cannot be trusted again",
                hint="create another one: edgekit keys new NAME",
            )
    keys = {key.public: key for key in (*trust.keys, *job.add)}
    for public in job.revoke:
        if public not in keys and public not in revoked:
            raise AgentError("unknown_key", f"the device does not trust a key {public[:16]}")
    gone = tuple(key for public, key in keys.items() if public in job.revoke)
    remaining = tuple(key for public, key in keys.items() if public not in job.revoke)
    if len(remaining) > _MOST_KEYS:
        raise AgentError("bad_job", f"more than {_MOST_KEYS} trusted keys")
    return replace(
        trust,
        keys=remaining,
        revoked=(*trust.revoked, *gone),
        nonce=trust.nonce or secrets.token_hex(16),
        takes_unsigned=trust.takes_unsigned and not job.add,
        profile=trust.profile if job.profile is None else _check_profile(job.profile),
    )


def _check_key(key: TrustedKey) -> None:
    if not is_public_key(key.public) or not is_usable_key(bytes.fromhex(key.public)):
        raise AgentError("bad_job", f"not an Ed25519 public key in hex: {key.public[:70]!r}")
    if not _NAME.fullmatch(key.name):
        raise AgentError("bad_job", f"not a valid key name: {key.name[:70]!r}")


def _check_profile(profile: str) -> str:
    if not _PROFILE.fullmatch(profile):
        raise AgentError("bad_job", f"not the name of a device profile: {profile[:110]!r}")
    return profile


def _check_trust(trust: Trust) -> Trust:
    _check_publics(key.public for key in (*trust.keys, *trust.revoked))
    versions = [trust.version, *(each.version for each in trust.app_versions)]
    if min(versions) < 0 or trust.newest_s < 0:
        raise ValueError("a number is below 0")
    return trust


def _check_publics(publics: Iterable[str]) -> None:
    wrong: Tuple[str, ...] = tuple(p for p in publics if not is_public_key(p))
    if wrong:
        raise ValueError(f"not a public key: {wrong[0][:70]!r}")


def _write_trust(home: Home, trust: Trust) -> None:
    """Write the copy and the file of keys; the change is durable only once both are written."""
    path, copy = (os.path.join(home.path, name) for name in (TRUST, COPY))
    if _is_intact(copy) and not _is_intact(path):
        add_line(home, "restore keys", f"done: {path} was damaged or missing; its copy was used")
    record = encode(trust)
    if not trust.takes_unsigned:
        del record["takes_unsigned"]  # older agents do not know the field
    if not trust.app_versions:
        del record["app_versions"]
    data = json.dumps(record, indent=1, allow_nan=False).encode()
    # The copy first: if a power cut leaves two versions, the copy lacks no revocation.
    write_atomic(copy, data, is_private=True)
    write_atomic(path, data, is_private=True)


def _is_intact(path: str) -> bool:
    try:
        _read_keys(path)
    except (OSError, ValueError):
        return False
    return True
