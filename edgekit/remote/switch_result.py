"""Switch of a device to another release, also if the device's answer is lost."""

from __future__ import annotations

from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.session import Progress, Session
from edgekit_agent.jobs import InstallJob, PackageJob, RollbackJob, StatusJob
from edgekit_agent.results import Status
from edgekit_agent.worker_results import StageProgress

# Kinds of unexpected failures, which may have happened after the switch.
_IN_DOUBT = frozenset(
    ("internal", "no_memory", "no_space", "disk_failed", "read_only", "permission", "missing_file")
)
# The longest wait for an install that may still run after its host lost the connection.
SETTLED_S = 180.0


def switch(
    session: Session,
    job: InstallJob | PackageJob | RollbackJob,
    *,
    wanted: str,
    progress: Progress | None = None,
) -> Status:
    """Send a job that switches a device to a release, and check that the device serves it.

    Args:
        session: the device.
        job: the job.
        wanted: the name of the release that the device serves after the job.
        progress: called with the progress.

    Returns:
        The status of the device, which serves the release, undamaged and healthy.

    Raises:
        UnknownStateError: the answer was lost, and the device could not be asked again.
        DeviceError: the device does not serve the release, or not in good health.
    """
    try:
        after = session.ask(job, Status, progress=progress)
    except DeviceError as error:
        is_known = error.kind and error.kind not in _IN_DOUBT
        if is_known or not session.delivered:
            raise
        return _ask_again(session, wanted, job.app, error, progress)
    if _is_serving(after, wanted):
        return after
    wrong = DeviceError(
        f"{session.name}: the device reports that it serves {_get_current_name(after)}"
    )
    return _ask_again(session, wanted, job.app, wrong, progress)


def format_command(verb: str, host: str, app: str) -> str:
    """Return the command line that the user runs for a host, with the name of an app."""
    return f"edgekit {verb} {host}{f' --name {app}' if app else ''}"


def _is_serving(after: Status, wanted: str) -> bool:
    health = after.health
    return _get_current_name(after) == wanted and health is not None and health.healthy


def _get_current_name(after: Status) -> str:
    return after.current.name if after.current else "nothing"


def _ask_again(
    session: Session, wanted: str, app: str, lost: DeviceError, progress: Progress | None
) -> Status:
    """Connect once more and check which release the device serves.

    Raises:
        DeviceError: it serves another release, or this one is damaged or unhealthy.
        UnknownStateError: the device could not be asked.
    """
    if progress is not None:
        progress(StageProgress(f"{lost.message}; reconnecting"))
    try:
        session.reconnect()
        job = StatusJob(home=session.home, check=wanted, wait_s=SETTLED_S, app=app)
        after = session.ask(job, Status, progress=progress)
    except DeviceError as error:
        if error.kind in ("corrupt", "unhealthy"):
            raise error from lost
        raise UnknownStateError(
            f"{lost.message}; it is unknown whether the device serves {wanted}, as the second "
            f"attempt failed: {error.message.removeprefix(f'{session.name}: ')}",
            hint=f"check with '{format_command('status', session.name, app)}' when the device can "
            "be reached",
            transient=True,
        ) from lost
    if _is_serving(after, wanted):
        return after
    raise DeviceError(
        f"{lost.message}; after reconnecting, the device serves {_get_current_name(after)}, not "
        f"{wanted}",
        hint=lost.hint,
        transient=lost.transient,
        kind=lost.kind,
    ) from lost
