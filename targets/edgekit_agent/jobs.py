"""Jobs of the agent itself, which ``codec`` converts to JSON; see ``worker_jobs`` for the others.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex. ``app`` is the
name of the named home, in ``home``, that a job is about; empty = ``home`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

from edgekit_agent.protocol import mark_added, mark_old_name
from edgekit_agent.trust.statements import Signature, TrustedKey
from edgekit_agent.worker_jobs import Blob


@dataclass(frozen=True)
class ProbeJob:
    """Describe this device. ``sites`` are folders of unpacked wheels to search for runtimes."""

    home: str
    sites: Tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanJob:
    """Report which of these blobs the device lacks, and how much of each it has received."""

    home: str
    blobs: Tuple[Blob, ...]
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class ReceiveJob:
    """Receive blobs from the bytes after this line, each from its entry of ``offsets`` on.

    Packed blobs need numpy: ``site`` is its folder, if it is not installed in this Python.
    """

    home: str
    blobs: Tuple[Blob, ...]
    offsets: Tuple[int, ...]
    site: Optional[str] = None
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class ForgetJob:
    """Remove these objects and their partial downloads; objects of a release are kept."""

    home: str
    digests: Tuple[str, ...]


@dataclass(frozen=True)
class NamedBlob:
    """A received blob and its file name in a release."""

    name: str
    digest: str


@dataclass(frozen=True)
class RuntimeJob:
    """Unpack received wheels into ``runtimes/NAME``, completely or not at all.

    An existing folder is replaced: the host only sends runtimes that do not work.
    """

    home: str
    name: str
    wheels: Tuple[NamedBlob, ...]


@dataclass(frozen=True)
class InstallJob:
    """Assemble a release from received blobs, check its health, and switch ``current`` to it.

    ``golden_samples`` is the name of one of the ``files``. ``permit`` is a signed permit to install
    a lower version. Unless the release is confirmed within ``watch_s`` seconds, the device goes
    back; 0 = it needs no confirmation.
    """

    home: str
    release: str
    files: Tuple[NamedBlob, ...]
    model: str
    runtime: str
    threads: int
    site: Optional[str]
    golden_samples: str = field(metadata=mark_old_name("canaries"))
    max_relative_error: float = 0.1
    runtime_version: str = ""
    signature: Optional[Signature] = None
    permit: Optional[Signature] = None
    watch_s: float = 0.0
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class AdmitJob:
    """Check that the device would take a release, before anything is sent for it.

    ``permit`` is the signed permit to install a lower version.
    """

    home: str
    signature: Optional[Signature]
    permit: Optional[Signature] = None
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class TrustJob:
    """Trust and revoke keys, and bind the device to a profile; with neither, report the keys.

    ``revoke`` are public keys in hex. ``profile`` is the only device profile whose releases are
    taken; an empty one allows every profile. ``replace`` allows to start without keys if the file
    of keys and its copy are damaged.
    """

    home: str
    add: Tuple[TrustedKey, ...] = ()
    revoke: Tuple[str, ...] = ()
    profile: Optional[str] = None
    replace: bool = False


@dataclass(frozen=True)
class UntrustJob:
    """Remove all trusted keys and take unsigned releases again; ``waiver`` permits that."""

    home: str
    waiver: Signature


@dataclass(frozen=True)
class ConfirmJob:
    """Confirm that a release works, so that it is served on."""

    home: str
    release: str
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class RollbackJob:
    """Check the health of the previous release and switch ``current`` back to it."""

    home: str
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class PackagePlanJob:
    """Check that this device can run a package, and report which of its members it lacks.

    ``package`` is ``package.json`` as ``encode_statement`` returns it.
    """

    home: str
    app: str
    package: str


@dataclass(frozen=True)
class PackageJob:
    """Install a package from received members, check it, and switch its app to it.

    ``package`` is ``package.json`` as in the plan, and ``signature`` signs it; ``permit`` is a
    signed permit to install a lower version. Unless it is confirmed within ``watch_s`` seconds,
    the device goes back; 0 = it needs no confirmation.
    """

    home: str
    app: str
    package: str
    signature: Optional[Signature] = None
    permit: Optional[Signature] = None
    watch_s: float = 0.0


@dataclass(frozen=True)
class UninstallJob:
    """Remove a named home with its releases, and the runtimes that nothing else uses."""

    home: str
    app: str


@dataclass(frozen=True)
class StatusJob:
    """Report the current and the previous release.

    If ``check`` is the name of the current release, its digests and its health are checked too.
    ``log`` is how many lines of the audit log to report.
    Another agent that is changing the home is waited for, up to ``wait_s``.
    """

    home: str
    check: str = ""
    log: int = 0
    wait_s: float = 0.0
    app: str = field(default="", metadata=mark_added())
