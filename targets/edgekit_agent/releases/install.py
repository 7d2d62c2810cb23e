"""Installation of a release: stage, verify, check health, switch; rollback and status."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from typing import Callable, Optional

from edgekit_agent.boot.watch import (
    MOST_SECONDS,
    begin_watch,
    drop_watch,
    read_pending_watch,
    settle_watch,
)
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, link_or_copy, sha256_of, temporary_name
from edgekit_agent.jobs import InstallJob, NamedBlob, RollbackJob, StatusJob
from edgekit_agent.releases.app_status import describe_apps, describe_release
from edgekit_agent.releases.audit import read_last_lines
from edgekit_agent.releases.cleanup import remove_unneeded
from edgekit_agent.releases.current import (
    both_releases,
    current_release,
    is_app,
    previous_release,
    switch,
)
from edgekit_agent.releases.homes import Home, open_home, share
from edgekit_agent.releases.lock_wait import wait_until_unlocked
from edgekit_agent.releases.provenance import read_provenance
from edgekit_agent.releases.rebuild import rebuild_records
from edgekit_agent.releases.records import RECORD, check_file_names, check_record, write_record
from edgekit_agent.releases.store import (
    adopt_object,
    discard,
    find_damaged_files,
    lock_home,
    read_release,
    sweep,
)
from edgekit_agent.results import Release, Status
from edgekit_agent.trust.keys import (
    check_admission,
    check_as_signed,
    check_not_revoked,
    read_trust,
    record_release,
    try_read_trust,
)
from edgekit_agent.trust.statements import Statement
from edgekit_agent.wire import Progress
from edgekit_agent.worker_jobs import HealthJob, ModelRef
from edgekit_agent.worker_results import Health

_NOT_OURS = "build the bundle again; nothing was changed on the device"

AskHealth = Callable[[HealthJob], Health]


def install(job: InstallJob, ask_health: AskHealth, progress: Progress) -> Status:
    """Install a release beside the served one, check its health, then switch to it.

    At every moment ``current`` points to a complete release, also after a power cut. A release that
    is here already is verified and repaired; nothing else changes when it is the current one.

    Raises:
        AgentError: ``bad_job``, ``missing_blob`` (transient), ``corrupt`` (transient),
            ``unhealthy`` (the release stays), ``busy``; refusals of a device that trusts keys:
            see ``trust``.
    """
    home = open_home(job.home, job.app)
    _check_release(_build_release(job, None))
    if not 0 <= job.watch_s <= MOST_SECONDS:
        raise AgentError("bad_job", f"watch_s is {job.watch_s:g}, must be 0 to {MOST_SECONDS:g}")
    with lock_home(home):
        statement = check_admission(read_trust(home), job.signature, job.permit)
        if statement is not None:
            check_as_signed(job, statement)
        settle_watch(home, job.release)
        _check_is_no_app(home)
        release = _build_release(job, statement)
        sweep(home)
        progress("verify", 0, len(job.files))
        if os.path.isdir(home.release(job.release)):
            _repair_release(home, release)
        else:
            _stage(home, release)
        served, previous = current_release(home), previous_release(home)
        try:
            progress("health", 0, 1)
            health = _check_health(home, release, ask_health)
        except BaseException:
            if job.release not in (served, previous):
                discard(home, "releases", job.release)
            raise
        _refresh_record(home, release)
        if statement is not None:
            record_release(home, statement, job.signature, job.permit)
        before = previous if served == job.release else served
        if job.watch_s and served not in (None, job.release):
            begin_watch(home, job.release, served, job.watch_s)
        answer = _build_status(home, job.release, before, health)
        switch(home, job.release)
        # The device has switched: a failure to remove old files must not hide that.
        with contextlib.suppress(OSError):
            remove_unneeded(home)
        return answer


def rollback(job: RollbackJob, ask_health: AskHealth) -> Status:
    """Swap ``current`` and ``previous``, once the previous release is verified and healthy.

    Raises:
        AgentError: ``no_previous``, ``corrupt``, ``unhealthy`` (the release stays), ``busy``.
    """
    home = open_home(job.home, job.app)
    if current_release(home) is None:
        raise AgentError("nothing_installed", f"{home.path}: no release is installed")
    with lock_home(home, creates=False):
        served, previous = current_release(home), previous_release(home)
        if served is None or previous is None:
            raise AgentError(
                "no_previous",
                f"{home.path}: there is no previous release to roll back to",
                hint="a previous release is kept from the second push on",
            )
        health = _check_installed(home, previous, ask_health)
        answer = replace(_build_status(home, previous, served, health), watch=None)
        switch(home, previous)
        # Only now: until the switch, the unconfirmed release must still be watched.
        # Where the file cannot be removed, the watcher finds that another release is served.
        with contextlib.suppress(OSError):
            drop_watch(home)
        return answer


def _check_is_no_app(home: Home) -> None:
    """Check that no app was installed under the name, whose command would end with its release."""
    if is_app(home):
        raise AgentError(
            "name_in_use",
            f"{home.path}: {home.app} is an app that was installed from a package file",
            hint="choose another --name, or push its package file",
        )


def _check_installed(home: Home, name: str, ask_health: AskHealth) -> Health:
    """Check that a release is complete and healthy; rebuild its record if that is damaged."""
    try:
        release = read_release(home, name)
    except AgentError as damage:
        return _repair_record(home, name, ask_health, damage)
    check_not_revoked(try_read_trust(home), release.key)
    _check_files(home, release)
    return _check_health(home, release, ask_health)


def _repair_record(home: Home, name: str, ask_health: AskHealth, damage: AgentError) -> Health:
    """Find the settings with which the release is healthy, and record them.

    The key that signed the release is lost with the record. So a device that takes only signed
    releases does not serve it again.
    """
    failure, trust = damage, try_read_trust(home)
    if trust is None or trust.wants_signature():
        raise damage
    for release in rebuild_records(home, name):
        _check_files(home, release)
        try:
            health = _check_health(home, release, ask_health)
        except AgentError as error:
            failure = error
            continue
        write_record(home.release(name), release)
        return health
    raise failure


def status(job: StatusJob, ask_health: AskHealth) -> Status:
    """Report the current and the previous release; check the current one if asked.

    If the record of a release is damaged, only its name is reported; pushing it again repairs it.

    Raises:
        AgentError: the release to check is ``corrupt`` or ``unhealthy``; ``busy``.
    """
    home = open_home(job.home, job.app)
    if job.wait_s:
        wait_until_unlocked(home.path, job.wait_s)
    served, health = current_release(home), None
    if served is not None and served == job.check:
        release = read_release(home, served)
        _check_files(home, release)
        health = _check_health(home, release, ask_health)
    # Without the lock: the device may roll back meanwhile, which switches before the watch ends. So
    # the watch is read first.
    watch = read_pending_watch(home)
    served, previous = both_releases(home)
    answer = _build_status(home, served, previous, health if served == job.check else None)
    apps = () if home.app else describe_apps(home)
    return replace(answer, watch=watch, log=read_last_lines(home, job.log), apps=apps)


def _build_status(
    home: Home, current: Optional[str], previous: Optional[str], health: Optional[Health]
) -> Status:
    return Status(
        current=describe_release(home, current) if current else None,
        previous=describe_release(home, previous) if previous else None,
        health=health,
        current_model=read_provenance(home.release(current)) if current else None,
        previous_model=read_provenance(home.release(previous)) if previous else None,
        trust=try_read_trust(home),
        watch=read_pending_watch(home),
    )


def _check_files(home: Home, release: Release) -> None:
    damaged = find_damaged_files(home, release)
    if damaged:
        raise AgentError(
            "corrupt",
            f"{home.release(release.name)}: damaged: {', '.join(damaged)}",
            hint="push its bundle again",
        )


def _check_release(release: Release) -> None:
    """Refuse a release that its own record could not describe, before anything is changed."""
    names = [file.name for file in release.files]
    try:
        check_record(release)
        check_file_names(names)
    except ValueError as error:
        raise AgentError("bad_job", f"{release.name[:40]}: {error}", hint=_NOT_OURS) from error
    for name in (release.model, release.golden_samples):
        if name not in names:
            raise AgentError("bad_job", f"{name!r} is not among the files of the release")


def _build_release(job: InstallJob, statement: Optional[Statement]) -> Release:
    return Release(
        name=job.release,
        model=job.model,
        runtime=job.runtime,
        threads=job.threads,
        site=job.site,
        golden_samples=job.golden_samples,
        installed_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files=job.files,
        max_relative_error=job.max_relative_error,
        runtime_version=job.runtime_version,
        key=statement.key if statement else "",
        version=statement.version if statement else 0,
    )


def _stage(home: Home, release: Release) -> None:
    """Assemble a release in a staging folder, then rename that to the name of the release."""
    staging = home.staging("releases")
    os.mkdir(staging)
    try:
        for file in release.files:
            path = os.path.join(staging, file.name)
            _link_object(home, file, path)
            # Read the bytes that will be served, not the object that they come from.
            if sha256_of(path) != file.digest:
                raise _remove_damaged_object(home, file)
        write_record(staging, release)
        share(home, staging)
        fsync_folder(staging)
        os.rename(staging, home.release(release.name))
        fsync_folder(home.folder("releases"))
    except Exception:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _repair_release(home: Home, release: Release) -> None:
    """Replace every damaged file of a release that is here already."""
    _check_same_files(home, release)
    folder = home.release(release.name)
    by_name = {file.name: file for file in release.files}
    for name in find_damaged_files(home, release):
        path = os.path.join(folder, name)
        temporary = temporary_name(path)
        _link_object(home, by_name[name], temporary)
        if sha256_of(temporary) != by_name[name].digest:
            os.unlink(temporary)
            raise _remove_damaged_object(home, by_name[name])
        os.replace(temporary, path)
    share(home, folder)
    fsync_folder(folder)


def _check_same_files(home: Home, release: Release) -> None:
    try:
        installed = read_release(home, release.name)
    except AgentError:
        write_record(home.release(release.name), release)  # this replaces the damaged record
        return
    if set(installed.files) != set(release.files):
        # If they were replaced one by one, the device would serve a mixture for a time.
        raise AgentError(
            "bad_job", f"the device already has a release {release.name} with other files"
        )


def _link_object(home: Home, file: NamedBlob, path: str) -> None:
    """Link an object to a path, or copy it where the file system has no hard links."""
    try:
        link_or_copy(adopt_object(home, file.digest), path)
    except FileNotFoundError:
        raise AgentError(
            "missing_blob",
            f"{file.name} ({file.digest[:12]}) has not been received",
            hint="push again",
            transient=True,
        ) from None


def _remove_damaged_object(home: Home, file: NamedBlob) -> AgentError:
    os.unlink(home.object(file.digest))
    return AgentError(
        "corrupt",
        f"{file.name} ({file.digest[:12]}) was damaged on the device's disk",
        hint="push again; if this happens again, the storage is failing",
        transient=True,
    )


def _check_health(home: Home, release: Release, ask_health: AskHealth) -> Health:
    folder = home.release(release.name)
    path = os.path.join(folder, release.model)
    health = ask_health(
        HealthJob(
            model=ModelRef(path, release.runtime, release.threads, release.site),
            golden_samples=os.path.join(folder, release.golden_samples),
            max_relative_error=release.max_relative_error,
        )
    )
    if not health.healthy:
        raise AgentError(
            "unhealthy",
            f"the outputs of {release.name} differ from those on the host: {health.detail}",
            hint="the device still serves the previous release",
        )
    return health


def _refresh_record(home: Home, release: Release) -> None:
    """Rewrite the record of a release if anything but the time of installation has changed."""
    recorded = read_release(home, release.name)
    if {**vars(recorded), "installed_at": ""} != {**vars(release), "installed_at": ""}:
        write_record(home.release(release.name), release)
        share(home, os.path.join(home.release(release.name), RECORD))
