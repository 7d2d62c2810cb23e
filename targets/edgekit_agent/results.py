"""Results of the agent itself, which ``codec`` converts to JSON; see ``worker_results`` for others.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

from edgekit_agent.jobs import NamedBlob
from edgekit_agent.protocol import mark_added, mark_old_name
from edgekit_agent.releases.provenance import Provenance
from edgekit_agent.trust.statements import TrustedKey
from edgekit_agent.worker_results import Health


@dataclass(frozen=True)
class Greeting:
    """First line of the program that starts the agent.

    ``home`` is edgekit's folder when all is in place, ``send`` the size of the agent where it is
    missing, ``error`` the reason to give up, and ``python`` is false where none was found.
    """

    home: Optional[str] = None
    send: Optional[int] = None
    error: Optional[str] = None
    python: Optional[bool] = None


@dataclass(frozen=True)
class RuntimeFacts:
    """A runtime found on a device. ``works``: an interpreter could be constructed."""

    name: str
    version: str
    package: str
    site: Optional[str]
    works: bool
    detail: str = ""


@dataclass(frozen=True)
class DeviceFacts:
    """Hardware and software of a device; unknown figures are ``None``."""

    machine: str
    system: str
    kernel: str
    libc: str  # "glibc 2.36", "musl 1.2.4", ""
    python: str
    pointer_bits: int
    cpu: str
    cores: int
    isa: Tuple[str, ...]
    memory_bytes: Optional[int]
    free_memory_bytes: Optional[int]
    free_disk_bytes: Optional[int]
    governor: Optional[str]
    temperature_c: Optional[float]
    load_1min: Optional[float]
    runtimes: Tuple[RuntimeFacts, ...]
    home_is_noexec: bool = False  # no library can be loaded from there


@dataclass(frozen=True)
class Plan:
    """Bytes of each requested blob that the device holds; -1 = complete and verified."""

    present: Tuple[int, ...]
    free_bytes: int


@dataclass(frozen=True)
class ReceiveResult:
    """Number of received blobs and bytes."""

    blobs: int
    wire_bytes: int


@dataclass(frozen=True)
class ForgetResult:
    """Digests of objects that are kept, because a release uses or may use them."""

    kept: Tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """A release on a device, with the settings of its installation.

    If its record is damaged, only the name is known and ``model`` is empty. ``key`` and
    ``version`` are those of its signature, where the device verified one.
    """

    name: str
    model: str
    runtime: str
    threads: int
    site: Optional[str]
    golden_samples: str = field(metadata=mark_old_name("canaries"))
    installed_at: str  # UTC, ISO 8601
    files: Tuple[NamedBlob, ...] = ()
    max_relative_error: float = 0.1
    runtime_version: str = ""
    key: str = ""
    version: int = 0


@dataclass(frozen=True)
class AppVersion:
    """The highest version of a signed release that was taken under a name."""

    app: str
    version: int


@dataclass(frozen=True)
class Trust:
    """Keys whose releases a device takes. If it trusts one, it takes no others.

    Attributes:
        keys: trusted; empty where every key was revoked or none was ever trusted.
        revoked: never to be trusted again.
        version: the highest version of a release that was taken, under the name in question.
        newest_s: the newest time that was signed, in seconds since 1970; the clock may be behind.
        nonce: random number that a permit or a waiver has to name.
        profile: the only device profile whose releases are taken; empty = every one.
        takes_unsigned: the owner of a trusted key has ended the trust in all keys.
        app_versions: the highest version under each name; it stays when the name is removed.
    """

    keys: Tuple[TrustedKey, ...] = ()
    revoked: Tuple[TrustedKey, ...] = ()
    version: int = 0
    newest_s: int = 0
    nonce: str = ""
    profile: str = ""
    takes_unsigned: bool = False
    app_versions: Tuple[AppVersion, ...] = field(default=(), metadata=mark_added())

    def wants_signature(self) -> bool:
        """Return whether unsigned releases are refused."""
        return bool(self.keys or self.revoked) and not self.takes_unsigned


@dataclass(frozen=True)
class Watch:
    """A release that is served and waits for its confirmation.

    Attributes:
        release: the release to confirm.
        previous: the release that is served again without a confirmation.
        seconds: time limit of the confirmation.
        until_s: deadline, in seconds since the boot.
        boot: identifier of that boot.
        after_reboot: ``systemd`` or ``cron``, which starts the watcher after a reboot; else empty.
        boot_problem: why neither does.
    """

    release: str
    previous: str
    seconds: float
    until_s: float
    boot: str
    after_reboot: str
    boot_problem: str = ""


@dataclass(frozen=True)
class ConfirmResult:
    """The release that was confirmed."""

    release: str


@dataclass(frozen=True)
class AuditLine:
    """An action on a device, done or refused.

    Attributes:
        at: by the clock of the device; UTC, ISO 8601.
        user: user that the agent ran as.
        client: address of the SSH client; empty for somebody at the device itself.
        action: ``install``, ``rollback``, ``trust``, ``revoke``, ``untrust``, ``replace keys``,
            ``restore keys``, ``confirm``, ``go back`` or ``uninstall``.
        release: its name; after a rollback, the release that is served since.
        version: of the release, where the device verified a signature.
        key: short name of the key of the release, or of the key that was trusted or revoked.
        result: ``done``, or the kind of failure and its message.
        app: the name that the release is installed under; empty for the main home.
    """

    at: str
    user: str
    client: str
    action: str
    release: str
    version: int
    key: str
    result: str
    app: str = field(default="", metadata=mark_added())


@dataclass(frozen=True)
class AppStatus:
    """The served and the previous release of a named home; their files are left out."""

    name: str
    current: Optional[Release]
    previous: Optional[Release]
    current_model: Optional[Provenance] = None
    previous_model: Optional[Provenance] = None
    watch: Optional[Watch] = None


@dataclass(frozen=True)
class PackagePlan:
    """Members of a package that the device lacks, by their paths."""

    missing: Tuple[str, ...]
    free_bytes: int


@dataclass(frozen=True)
class UninstallResult:
    """The removal of a named home.

    Attributes:
        release: the release that it served; empty if it served none.
        runtimes: the runtimes that were removed with it.
        boot_problem: why the start of its watcher at boot could not be removed.
    """

    release: str
    runtimes: Tuple[str, ...] = ()
    boot_problem: str = ""


@dataclass(frozen=True)
class Status:
    """The served release (``current``) and the release for a rollback (``previous``).

    ``current_model`` and ``previous_model`` are the provenance of their models, if their manifests
    can be read. ``trust`` is missing where its file is damaged. ``log`` has the last lines of the
    audit log, as many as the job asked for. ``watch`` is set while the current release waits for
    its confirmation. ``apps`` are the named homes of the device, if the job asked for none of them.
    """

    current: Optional[Release]
    previous: Optional[Release]
    health: Optional[Health] = None
    current_model: Optional[Provenance] = None
    previous_model: Optional[Provenance] = None
    trust: Optional[Trust] = Trust()
    log: Tuple[AuditLine, ...] = ()
    watch: Optional[Watch] = None
    apps: Tuple[AppStatus, ...] = field(default=(), metadata=mark_added())


@dataclass(frozen=True)
class RuntimeResult:
    """The folder of an unpacked runtime on the device."""

    site: str
