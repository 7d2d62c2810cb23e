"""Installation of a package file of an app on a device."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from edgekit.bundle.package_file import AppPackage
from edgekit.bundle.sent_files import list_package_files
from edgekit.remote.confirmation import UNWATCHED, WatchTerms, confirm
from edgekit.remote.deploy import PushReport, ask_status
from edgekit.remote.session import Progress, Session
from edgekit.remote.switch_result import switch
from edgekit.remote.trust import is_installed, request_admission
from edgekit.remote.upload import send
from edgekit_agent.apps.statement_text import encode_statement
from edgekit_agent.jobs import PackageJob, PackagePlanJob
from edgekit_agent.results import PackagePlan

# Where the package file itself installs for a user: below the prefix ``~/.local``.
APP_HOME = "~/.local/share/edgekit"


def push_package(
    package: AppPackage,
    session: Session,
    *,
    progress: Progress | None = None,
    allow_downgrade: bool = False,
    watch: WatchTerms = UNWATCHED,
) -> PushReport:
    """Install a package and switch its app to it if the self-check passes.

    Args:
        package: the package to install.
        session: the device; its home is the folder ``share/edgekit`` of a prefix.
        progress: called with the progress.
        allow_downgrade: install a lower version if the device trusts a key of this user.
        watch: how long the device waits for a confirmation before it rolls back, and from whom.

    Raises:
        DeviceError: the device cannot run the app, or the installation failed; the app is as it was
            before.
        UnknownStateError: the link was lost, and the device could not be asked which release it
            serves.
    """
    started, name = time.monotonic(), package.package.name
    text = encode_statement(package.data)
    plan_job = PackagePlanJob(session.home, name, text)
    plan = session.ask(plan_job, PackagePlan, progress=progress)
    after = ask_status(session, package.release, progress, name)
    permit = request_admission(
        session, package, after.trust, allow_downgrade=allow_downgrade, app=name
    )
    if not is_installed(package, after):
        _send_missing(session, package, plan, progress)
        job = PackageJob(session.home, name, text, package.signature, permit, watch.seconds)
        after = switch(session, job, wanted=package.release, progress=progress)
    confirm(session, after, package.release, watch, progress, name)
    return PushReport(
        host=session.name,
        release=package.release,
        previous=after.previous.name if after.previous else None,
        sent_bytes=session.count_newly_sent(),
        total_bytes=sum(file.installed_bytes for file in package.package.list_installed()),
        runtime=after.current.runtime if after.current else "",
        seconds=time.monotonic() - started,
        health=after.health,
        watch=after.watch,
        name=name,
        sent=list_package_files(package),
    )


def _send_missing(
    session: Session, package: AppPackage, plan: PackagePlan, progress: Progress | None
) -> None:
    wanted = set(plan.missing)
    files = tuple(file for file in package.package.files if file.path in wanted)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        paths = package.copy_members(files, Path(scratch))
        sources = [(path, file.digest) for path, file in zip(paths, files, strict=True)]
        if sources:
            send(session, sources, progress, app=package.package.name)
