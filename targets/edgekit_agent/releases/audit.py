"""The audit log of a device: time, user, action, release and result."""

from __future__ import annotations

import json
import os
import pwd
import sys
from datetime import datetime, timezone
from typing import Callable, Iterator, List, Tuple, TypeVar, Union

from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import to_failure
from edgekit_agent.files import open_regular
from edgekit_agent.jobs import (
    AdmitJob,
    InstallJob,
    PackageJob,
    RollbackJob,
    TrustJob,
    UninstallJob,
    UntrustJob,
)
from edgekit_agent.releases.homes import Home, is_marked, open_home
from edgekit_agent.results import AuditLine, Status, UninstallResult
from edgekit_agent.strictjson import loads
from edgekit_agent.trust.statements import key_id

T = TypeVar("T")

LOG, OLDER_LOG = "audit.jsonl", "audit.1.jsonl"
# A log that is larger is renamed to OLDER_LOG, and a new one begins.
_MOST_BYTES = 1 << 20
_MOST_CHARS = 300


AuditedJob = Union[
    InstallJob, PackageJob, AdmitJob, RollbackJob, TrustJob, UntrustJob, UninstallJob
]


def run_and_log(job: AuditedJob, act: Callable[[], T]) -> T:
    """Run a job that changes the served release or the trusted keys, and log its result.

    Nothing is logged if the job only asked for the keys, or for an admission that is not refused.
    """
    app = "" if isinstance(job, (TrustJob, UntrustJob)) else job.app
    home = open_home(job.home, app)
    action, release, key = _describe_job(job)
    try:
        result = act()
    except Exception as error:
        failure = to_failure(error)
        # A folder without the marker may be another program's: nothing is written there.
        if action and is_marked(Home(home.main_path)):
            add_line(home, action, f"{failure.kind}: {failure.message}", release=release, key=key)
        raise
    if action and not isinstance(job, AdmitJob):
        version, served = 0, result.current if isinstance(result, Status) else None
        if served is not None:
            release, key, version = served.name, served.key, served.version
        if isinstance(result, UninstallResult):
            release = result.release
        add_line(home, action, "done", release=release, key=key, version=version)
    return result


def _describe_job(job: object) -> Tuple[str, str, str]:
    """Return the action, the release and the key of a job, the last two as stated in the job."""
    if isinstance(job, (InstallJob, PackageJob, AdmitJob)):
        release = job.release if isinstance(job, InstallJob) else ""
        return "install", release, job.signature.key if job.signature else ""
    if isinstance(job, RollbackJob):
        return "rollback", "", ""
    if isinstance(job, UninstallJob):
        return "uninstall", "", ""
    if isinstance(job, TrustJob) and job.revoke:
        return "revoke", "", job.revoke[0]
    if isinstance(job, TrustJob) and (job.add or job.profile is not None):
        return "trust", "", job.add[0].public if job.add else ""
    if isinstance(job, UntrustJob):
        return "untrust", "", job.waiver.key
    return "", "", ""


def add_line(
    home: Home,
    action: str,
    result: str,
    *,
    release: str = "",
    key: str = "",
    version: int = 0,
) -> None:
    """Append a line to the audit log of a home; do nothing if the home does not exist.

    The log of a named home is that of the main home, so that it survives the removal of the name.

    A log that cannot be written is reported on stderr and does not fail the action.
    """
    if not os.path.isdir(home.main_path):
        return
    line = AuditLine(
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        user=_get_user(),
        client=os.environ.get("SSH_CONNECTION", "").partition(" ")[0][:64],
        action=action,
        release=release[:_MOST_CHARS],
        version=version,
        key=_shorten_key(key),
        result=result[:_MOST_CHARS],
        app=home.app,
    )
    record = encode(line)
    if not home.app:
        del record["app"]  # older agents do not know the field
    data = json.dumps(record, sort_keys=True).encode() + b"\n"
    path = os.path.join(home.main_path, LOG)
    try:
        if os.path.isfile(path) and os.path.getsize(path) > _MOST_BYTES:
            os.replace(path, os.path.join(home.main_path, OLDER_LOG))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(path, flags, 0o600)
        try:
            os.write(handle, _get_missing_newline(handle) + data)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        sys.stderr.write(f"{path}: cannot be written: {error.strerror}\n")


def _get_missing_newline(handle: int) -> bytes:
    """Return a line feed if a power cut or a full disk left the last line incomplete."""
    size = os.fstat(handle).st_size
    return b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""


def read_last_lines(home: Home, count: int) -> Tuple[AuditLine, ...]:
    """Read the last ``count`` lines of the log, oldest first; damaged lines are left out.

    Of a named home they are the lines of its name.
    """
    lines: List[AuditLine] = []
    for name in (LOG, OLDER_LOG):
        if len(lines) < count:
            found = _read_lines(os.path.join(home.main_path, name))
            lines = [*(line for line in found if home.app in ("", line.app)), *lines]
    return tuple(lines[-count:]) if count > 0 else ()


def _read_lines(path: str) -> Iterator[AuditLine]:
    try:
        with open_regular(path) as file:
            data = file.read(2 * _MOST_BYTES)
    except (FileNotFoundError, ValueError):
        return
    for text in data.splitlines():
        try:
            yield decode(AuditLine, loads(text))
        except ValueError:
            continue


def _shorten_key(key: str) -> str:
    try:
        return key_id(key) if key else ""
    except ValueError:
        return "none"


def _get_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
