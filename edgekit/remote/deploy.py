"""Installation of bundles on a device, rollback and status."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from edgekit.bundle.bundle_file import Bundle
from edgekit.bundle.manifest import MANIFEST, RELEASE_DIGITS
from edgekit.bundle.packing import TransferData
from edgekit.bundle.sent_files import SentFiles, list_sent_files
from edgekit.config.profile import DeviceProfile, RuntimeName, RuntimeSpec
from edgekit.errors import DeviceError
from edgekit.remote.confirmation import UNWATCHED, WatchTerms, confirm
from edgekit.remote.python_tags import read_device_python, userland
from edgekit.remote.session import Progress, Session
from edgekit.remote.switch_result import switch
from edgekit.remote.trust import is_installed, request_admission
from edgekit.remote.upload import PackedFiles, send, sha256
from edgekit.remote.wheels import choose_litert_packages, fetch_runtime
from edgekit_agent.jobs import InstallJob, NamedBlob, RollbackJob, RuntimeJob, StatusJob
from edgekit_agent.results import (
    AppStatus,
    DeviceFacts,
    RuntimeFacts,
    RuntimeResult,
    Status,
    Watch,
)
from edgekit_agent.trust.statements import Signature
from edgekit_agent.worker_results import Health


@dataclass(frozen=True, kw_only=True)
class PushReport:
    """The result of a push.

    Attributes:
        sent_bytes: all bytes sent to the device: the agent and the command that starts it, the
            runtime, the files and the jobs.
        total_bytes: the size of the release's files.
        runtime: name and version, such as ``onnxruntime 1.20.1``.
        watch: the wait for a confirmation of the release; None = none was needed.
        notes: remarks for the user.
        name: the name that the release is installed under; empty = none.
        sent: the files of the bundle, and the real samples in them.
    """

    host: str
    release: str
    previous: str | None
    sent_bytes: int
    total_bytes: int
    runtime: str
    seconds: float
    health: Health | None
    watch: Watch | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    sent: SentFiles | None = None


def push(
    bundle: Bundle,
    session: Session,
    *,
    cache: Path,
    progress: Progress | None = None,
    allow_downgrade: bool = False,
    watch: WatchTerms = UNWATCHED,
    app: str = "",
) -> PushReport:
    """Install a bundle and switch the device to it if its health check passes.

    Args:
        bundle: the bundle to install.
        session: the device.
        cache: the folder of runtime wheels on this machine.
        progress: called with the progress.
        allow_downgrade: install a lower version if the device trusts a key of this user.
        watch: how long the device waits for a confirmation before it rolls back, and from whom.
        app: the name to install the bundle under, next to other releases; empty = none.

    Raises:
        DeviceError: the installation failed; the device serves the same release as before.
        UnknownStateError: the link was lost, and the device could not be asked which release it
            serves.
    """
    started = time.monotonic()
    release = sha256(bundle.manifest_bytes)
    after = ask_status(session, release[:RELEASE_DIGITS], progress, app)
    permit = request_admission(
        session, bundle, after.trust, allow_downgrade=allow_downgrade, app=app
    )
    if not is_installed(bundle, after):
        after = _install(
            bundle, session, after, release, cache, progress, permit, watch.seconds, app
        )
    confirm(session, after, release[:RELEASE_DIGITS], watch, progress, app)
    return PushReport(
        host=session.name,
        release=release[:RELEASE_DIGITS],
        previous=after.previous.name if after.previous else None,
        sent_bytes=session.count_newly_sent(),
        total_bytes=len(bundle.manifest_bytes) + sum(f.bytes for f in bundle.manifest.files),
        runtime=_describe_runtime(after),
        seconds=time.monotonic() - started,
        health=after.health,
        watch=after.watch,
        name=app,
        sent=list_sent_files(bundle.manifest),
    )


def ask_status(session: Session, release: str, progress: Progress | None, app: str) -> Status:
    """Return the status of a home, with its health if it serves the release undamaged.

    Args:
        session: the device.
        release: the name of the release.
        progress: called with the progress.
        app: the name that the release is installed under; empty = none.

    Raises:
        DeviceError: the device could not be asked.
    """
    job = StatusJob(home=session.home, check=release, app=app)
    try:
        return session.ask(job, Status, progress=progress)
    except DeviceError as error:
        if not error.kind:
            raise
        # Damaged or unhealthy: a new install repairs it or reports why not.
        return status(session, app=app)


def _install(
    bundle: Bundle,
    session: Session,
    before: Status,
    release: str,
    cache: Path,
    progress: Progress | None,
    permit: Signature | None,
    watch_s: float,
    app: str,
) -> Status:
    manifest, use = bundle.manifest, bundle.manifest.runtime
    sites = find_sites(before, *([status(session)] if app else []))
    facts = session.facts(sites)
    check_machine(session.name, facts, manifest.profile)
    found = ensure_runtime(
        session,
        facts,
        use.name,
        manifest.profile.runtimes[use.name],
        use.version,
        cache=cache,
        progress=progress,
    )
    with _open_sources(bundle) as sources:
        packed = PackedFiles(
            find=lambda digest: _find_packed_model(bundle, digest), site=found.site
        )
        send(session, [*sources, (bundle.manifest_bytes, release)], progress, packed, app=app)
    job = InstallJob(
        home=session.home,
        release=release[:RELEASE_DIGITS],
        files=(*bundle.blobs(), NamedBlob(MANIFEST, release)),
        model=manifest.model,
        runtime=use.name,
        runtime_version=found.version,
        threads=use.threads,
        site=found.site,
        golden_samples=manifest.golden_samples,
        max_relative_error=manifest.max_relative_error,
        signature=bundle.signature,
        permit=permit,
        watch_s=watch_s,
        app=app,
    )
    return switch(session, job, wanted=job.release, progress=progress)


def _find_packed_model(bundle: Bundle, digest: str) -> TransferData | None:
    """Return the encoded form of the model; None for other files, which are not worth expanding."""
    model = bundle.manifest.file(bundle.manifest.model)
    return bundle.encode_for_transfer(model.name) if model.digest == digest else None


def _describe_runtime(after: Status) -> str:
    current = after.current
    return f"{current.runtime} {current.runtime_version}".strip() if current else ""


def rollback(session: Session, *, app: str = "") -> Status:
    """Switch the device to the previous release, of a name if one is given.

    Raises:
        DeviceError: there is no previous release, or it is not healthy.
        UnknownStateError: the link was lost, and the device could not be asked which release it
            serves.
    """
    job, before = RollbackJob(home=session.home, app=app), status(session, app=app).previous
    if before is None:
        return session.ask(job, Status)  # raises the agent's own error
    return switch(session, job, wanted=before.name)


def status(session: Session, *, log: int = 0, app: str = "") -> Status:
    """Ask a device for its current and previous release and the last ``log`` audit entries.

    With a name, they are those of the name; without one, all names are reported too.
    """
    return session.ask(StatusJob(home=session.home, log=log, app=app), Status)


def ensure_runtime(
    session: Session,
    facts: DeviceFacts,
    runtime: RuntimeName,
    spec: RuntimeSpec,
    tested_version: str,
    *,
    cache: Path,
    progress: Progress | None = None,
) -> RuntimeFacts:
    """Find a working runtime on the device that the profile allows, or install one.

    Args:
        session: the device.
        facts: the facts that the device reported.
        runtime: the name of the runtime.
        spec: the versions that the profile allows.
        tested_version: the version to install if the device has none that is allowed.
        cache: the folder of runtime wheels on this machine.
        progress: called with the progress.

    Returns:
        Facts of the runtime; their ``site`` is None for the device's own installation.

    Raises:
        DeviceError: no runtime works on the device, and none can be installed.
        PipMissing: it must be downloaded, and there is no pip.
    """
    found = _find_usable(facts, runtime, spec)
    if found is not None:
        return found
    if facts.home_is_noexec:
        raise _make_noexec_error(session, facts, runtime)
    python = read_device_python(session.name, facts)
    try:
        wheels = fetch_runtime(
            runtime, spec, python, tested_version=tested_version, cache=cache, progress=progress
        )
    except DeviceError as error:
        raise DeviceError(
            f"{session.name}: {error.message}{_describe_own_runtime(facts, runtime)}",
            hint=error.hint,
            transient=error.transient,
        ) from error
    site = f"{session.home}/runtimes/{wheels.name}"
    found = _find_usable(session.facts((site,)), runtime, spec)
    if found is not None:
        return found
    send(session, wheels.files, progress)
    named = tuple(NamedBlob(path.name, digest) for path, digest in wheels.files)
    job = RuntimeJob(home=session.home, name=wheels.name, wheels=named)
    unpacked = session.ask(job, RuntimeResult, progress=progress)
    # A new agent process must look for it: Python caches that a folder was missing.
    session.close()
    now = session.facts((unpacked.site,))
    found = _find_usable(now, runtime, spec)
    if found is None:
        raise _make_broken_runtime_error(session.name, now, unpacked.site, wheels.provided)
    return found


def _find_usable(facts: DeviceFacts, runtime: str, spec: RuntimeSpec) -> RuntimeFacts | None:
    """Return the first runtime that works and is allowed; the device's own comes first."""
    for found in sorted(facts.runtimes, key=lambda r: r.site is not None):
        if found.name == runtime and found.works and _is_allowed(spec, found):
            return found
    return None


def _is_allowed(spec: RuntimeSpec, found: RuntimeFacts) -> bool:
    if found.name == "litert" and found.package not in choose_litert_packages(spec.version):
        return False
    try:
        return SpecifierSet(spec.version).contains(Version(found.version), prereleases=True)
    except InvalidVersion:  # numbered by a Linux distribution: not comparable
        return False


def _describe_own_runtime(facts: DeviceFacts, runtime: str) -> str:
    own = [r for r in facts.runtimes if r.name == runtime and r.site is None]
    if not own:
        return ""
    return f" (its own {own[0].package} {own[0].version}: {own[0].detail or 'not allowed'})"


def _make_noexec_error(session: Session, facts: DeviceFacts, runtime: RuntimeName) -> DeviceError:
    return DeviceError(
        f"{session.name}: no usable {runtime} there{_describe_own_runtime(facts, runtime)}, and "
        f"none can be installed: edgekit's folder {session.home} is mounted noexec, so no "
        "library can be loaded from it",
        hint="choose another folder (--home), mount it without noexec, or install the runtime in "
        "the device's own Python",
        kind="noexec",
    )


def _make_broken_runtime_error(
    host: str, facts: DeviceFacts, site: str, provided: frozenset[str]
) -> DeviceError:
    there = [r for r in facts.runtimes if r.site == site]
    why = next(
        (r.detail for r in there if r.detail),
        "Python does not find it in the folder where it was unpacked",
    )
    packages = " ".join(f"python3-{name}" for name in sorted(provided))
    hint = f"no wheel of it exists for this device; apt install {packages}" if packages else ""
    return DeviceError(f"{host}: the runtime sent to {site} does not work: {why}", hint=hint)


def find_sites(*states: Status) -> tuple[str, ...]:
    """Return the folders of the runtimes that the releases of a device use, also under names."""
    homes: list[Status | AppStatus] = [*states, *(app for state in states for app in state.apps)]
    releases = [release for home in homes for release in (home.current, home.previous)]
    return tuple(dict.fromkeys(r.site for r in releases if r is not None and r.site is not None))


def check_machine(host: str, facts: DeviceFacts, profile: DeviceProfile) -> None:
    """Check that a device has the architecture of a profile.

    Raises:
        DeviceError: it has another architecture.
    """
    if userland(facts) != profile.hardware.arch:
        raise DeviceError(
            f"{host}: wrong architecture: the device is {userland(facts)} "
            f"({facts.cpu or 'unknown processor'}), the profile {profile.name} is for "
            f"{profile.hardware.arch}",
            hint="build for the profile of this device, or push to a device of this profile",
        )


@contextmanager
def _open_sources(bundle: Bundle) -> Iterator[Sequence[tuple[Path, str]]]:
    """Yield the path and sha256 of every file of a bundle; unpack a packed one temporarily."""
    if bundle.path.is_dir():
        yield [(bundle.path / blob.name, blob.digest) for blob in bundle.blobs()]
        return
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        for blob in bundle.blobs():
            (Path(scratch) / blob.name).write_bytes(bundle.read(blob.name))
        yield [(Path(scratch) / blob.name, blob.digest) for blob in bundle.blobs()]
