"""Signed bundles and a device on this machine, for the tests of signatures."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bundle.bundle_file import Bundle, encode_signature, open_bundle
from edgekit.bundle.manifest import SIGNATURE
from edgekit.remote.deploy import PushReport, push, rollback, status
from edgekit.remote.session import open_session
from edgekit.remote.trust import revoke_key, trust_key
from edgekit.signing.keys import OwnKey
from edgekit.signing.releases import Signer, sign_statement
from edgekit_agent.results import Status, Trust
from edgekit_agent.trust.signatures import read_statement
from edgekit_agent.trust.statements import Signature, Statement
from tests.builders.servers import make_bundle

# What changes with every run of the agent, whatever it does.
_ALWAYS = {"lock", "audit.jsonl"}


def make_signed(
    folder: Path, key: OwnKey, *, seed: int = 0, version: int = 1, valid_days: int = 10, **how: str
) -> Bundle:
    """Build a small signed bundle."""
    bundle = make_bundle(folder, seed=seed, width=8, **how)
    signer = Signer(key=key, version=version, valid_days=valid_days)
    return with_signature(bundle, signer.sign(bundle.manifest, bundle.manifest_bytes))


def with_signature(bundle: Bundle, signature: Signature | None) -> Bundle:
    """Return the bundle with another signature in its folder."""
    place = bundle.path / SIGNATURE
    place.unlink(missing_ok=True)
    if signature is not None:
        place.write_bytes(encode_signature(signature))
    return open_bundle(bundle.path)


def sign_changed(bundle: Bundle, key: OwnKey, **changes: object) -> Bundle:
    """Return the bundle with a changed statement that is signed again."""
    assert bundle.signature is not None
    statement = read_statement(Statement, bundle.signature)
    changed = replace(statement, key=key.public, **changes)
    return with_signature(bundle, sign_statement(key, changed))


@dataclass
class Device:
    """A device on this machine: ``local``, with a separate home."""

    home: Path
    cache: Path

    def push(self, bundle: Bundle, *, allow_downgrade: bool = False) -> PushReport:
        with open_session("local") as session:
            return push(bundle, session, cache=self.cache, allow_downgrade=allow_downgrade)

    def trust(self, key: OwnKey, profile: str | None = None, *, replace: bool = False) -> Trust:
        with open_session("local") as session:
            return trust_key(session, key.get_trusted_key(), profile, replace=replace)

    def revoke(self, key: OwnKey) -> Trust:
        with open_session("local") as session:
            return revoke_key(session, key.public)

    def status(self) -> Status:
        with open_session("local") as session:
            return status(session)

    def rollback(self) -> Status:
        with open_session("local") as session:
            return rollback(session)

    def files(self) -> dict[str, str]:
        """Return every file and link of the home with its contents."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            name = str(path.relative_to(self.home))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file() and name not in _ALWAYS:
                found[name] = path.read_bytes().hex()
        return found


def now_s() -> int:
    return int(time.time())
