"""Removal of the releases that a device holds under a name."""

from __future__ import annotations

from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.session import Session
from edgekit.remote.switch_result import SETTLED_S
from edgekit_agent.jobs import StatusJob, UninstallJob
from edgekit_agent.results import Status, UninstallResult


def uninstall(session: Session, app: str) -> UninstallResult:
    """Remove the releases that are installed under a name, and the runtimes that only they use.

    Raises:
        DeviceError: nothing is installed under this name, or the device is busy.
        UnknownStateError: the link was lost, and the device could not be asked whether the name
            was removed.
    """
    job = UninstallJob(home=session.home, app=app)
    try:
        return session.ask(job, UninstallResult)
    except DeviceError as error:
        if error.kind or not session.delivered:
            raise
        lost = error
    try:
        session.reconnect()
        wait = StatusJob(home=session.home, app=app, wait_s=SETTLED_S)
        after = session.ask(wait, Status)
    except DeviceError as error:
        raise UnknownStateError(
            f"{lost.message}; it is unknown whether {app} was removed",
            hint=f"check with 'edgekit status {session.name}' when the device can be reached",
            transient=True,
        ) from error
    if after.current is not None or after.previous is not None:
        raise lost
    return UninstallResult("")
