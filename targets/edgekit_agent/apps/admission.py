"""Signatures of packages, on devices that take signed releases only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Optional

from edgekit_agent import strictjson
from edgekit_agent.apps.package_file import PackageReader
from edgekit_agent.apps.package_format import PACKAGE, SIGNATURE
from edgekit_agent.codec import decode
from edgekit_agent.failures import AgentError
from edgekit_agent.releases.homes import Home
from edgekit_agent.trust.keys import check_admission, read_trust, record_release
from edgekit_agent.trust.statements import Signature, Statement


@dataclass(frozen=True)
class Admission:
    """A signed statement that admits a package."""

    statement: Statement
    signature: Optional[Signature]
    permit: Optional[Signature] = None


def check_signed(
    reader: PackageReader, home: Home, permit: Optional[Signature] = None
) -> Optional[Admission]:
    """Check that the device takes a package.

    The statement of its signature names the app and the release, and has ``package.json`` as its
    only file; that in turn has the digests of all others.

    Returns:
        The admission; ``None`` if the device takes unsigned packages.

    Raises:
        AgentError: ``unsigned``, ``not_as_signed``; see ``check_admission``.
    """
    data = reader.read_signature()
    try:
        signature = None if data is None else decode(Signature, strictjson.loads(data))
    except ValueError as error:
        raise AgentError("bad_signature", f"{SIGNATURE}: damaged: {error}") from error
    statement = check_admission(read_trust(home), signature, permit)
    if statement is None:
        return None
    digest = hashlib.sha256(reader.data).hexdigest()
    signed = [(file.name, file.digest) for file in statement.files]
    wanted = (reader.package.name, reader.release)
    if (statement.name, statement.release) != wanted or signed != [(PACKAGE, digest)]:
        raise AgentError(
            "not_as_signed",
            "the package is refused: it differs from the signed one",
            hint="package the app again; nothing was changed on the device",
        )
    return Admission(statement, signature, permit)


def record_admission(home: Home, admission: Admission) -> None:
    """Record the version and the time of a package that is about to be served."""
    record_release(home, admission.statement, admission.signature, admission.permit)
