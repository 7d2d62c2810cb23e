"""Switching of a device to a release, also if its answer is lost."""

from __future__ import annotations

from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.session import Progress, Session
from edgekit_agent.jobs import InstallJob, RollbackJob, StatusJob
from edgekit_agent.results import StageProgress, Status

# Unexpected failures of an agent, which may have come after the switch.
_IN_DOUBT = frozenset(
    ("internal", "no_memory", "no_space", "disk_failed", "read_only", "permission", "missing_file")
)
# An install that lost its host may still be at work: it is waited for so long.
SETTLED_S = 180.0


def switch(
    session: Session,
    job: InstallJob | RollbackJob,
    *,
    wanted: str,
    progress: Progress | None = None,
) -> Status:
    """Send a job that switches a device to a release, and check that it did.

    Args:
        session: the device.
        job: the job.
        wanted: the release that the device serves once the job is done.
        progress: called with the progress.

    Returns:
        The device serves the release, whole and healthy.

    Raises:
        UnknownStateError: the answer was lost, and the device could not be asked again.
        DeviceError: the device serves what it served before.
    """
    try:
        after = session.ask(job, Status, progress=progress)
    except DeviceError as error:
        is_known = error.kind and error.kind not in _IN_DOUBT
        if is_known or not session.delivered:
            raise
        return _ask_again(session, wanted, error, progress)
    if _serves(after, wanted):
        return after
    wrong = DeviceError(f"{session.name}: it answers that it serves {_current(after)}")
    return _ask_again(session, wanted, wrong, progress)


def _serves(after: Status, wanted: str) -> bool:
    health = after.health
    return _current(after) == wanted and health is not None and health.healthy


def _current(after: Status) -> str:
    return after.current.name if after.current else "nothing"


def _ask_again(
    session: Session, wanted: str, lost: DeviceError, progress: Progress | None
) -> Status:
    """Connect once more and ask which release is served.

    Raises:
        DeviceError: not the release that is wanted, or not as it should be.
    """
    if progress is not None:
        progress(StageProgress(f"{lost.message}; asking again"))
    try:
        session.reconnect()
        job = StatusJob(home=session.home, check=wanted, wait_s=SETTLED_S)
        after = session.ask(job, Status, progress=progress)
    except DeviceError as error:
        if error.kind in ("corrupt", "unhealthy"):
            raise error from lost
        raise UnknownStateError(
            f"{lost.message}; whether it serves {wanted} is unknown: asked again, "
            f"{error.message.removeprefix(f'{session.name}: ')}",
            hint=f"when it can be reached, 'edgekit status {session.name}' tells",
            transient=True,
        ) from lost
    if _serves(after, wanted):
        return after
    raise DeviceError(
        f"{lost.message}; asked again, it serves {_current(after)}, not {wanted}",
        hint=lost.hint,
        transient=lost.transient,
        kind=lost.kind,
    ) from lost
