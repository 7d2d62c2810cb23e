"""Confirmation of a new release by this machine or by the app on the device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeVar

from edgekit.errors import DeviceError, UnknownStateError
from edgekit.remote.host_names import LOCAL
from edgekit.remote.session import Progress, Session
from edgekit.remote.switch_result import format_command
from edgekit_agent.jobs import ConfirmJob, StatusJob
from edgekit_agent.results import ConfirmResult, Status, Watch
from edgekit_agent.worker_results import StageProgress

R = TypeVar("R")

DEFAULT_S = 30.0
_POLL_S = 1.0
# Seconds that the device may take to roll back after its waiting time.
_GRACE_S = 20.0
# The agent's names of two kinds of failure.
_WENT_BACK, _BUSY = "not_confirmed", "busy"


@dataclass(frozen=True, kw_only=True)
class WatchTerms:
    """Waiting time for the confirmation of a release, and who confirms it.

    Attributes:
        seconds: how long the device waits before it rolls back; 0 = no confirmation is needed.
        by_app: the app on the device confirms, instead of this machine.
    """

    seconds: float
    by_app: bool = False


UNWATCHED = WatchTerms(seconds=0.0)


def choose_watch_terms(host: str, seconds: float | None, *, by_app: bool) -> WatchTerms:
    """Return the terms for a host; by default 30 s, and 0 s for this machine, which has no link."""
    if seconds is None:
        seconds = 0.0 if host == LOCAL and not by_app else DEFAULT_S
    return WatchTerms(seconds=seconds, by_app=by_app)


def confirm(
    session: Session,
    after: Status,
    release: str,
    terms: WatchTerms,
    progress: Progress | None,
    app: str = "",
) -> None:
    """Confirm a release, or wait for the app to confirm it.

    Args:
        session: the device.
        after: the status of the device after the installation.
        release: the name of the installed release.
        terms: the waiting time, and who confirms.
        progress: called with the time waited for the app.
        app: the name that the release is installed under; empty = none.

    Raises:
        DeviceError: the release was not confirmed in time, and the device rolled back.
        UnknownStateError: the device could not be asked, or it failed meanwhile.
    """
    if after.watch is None or after.watch.release != release:
        return
    if not terms.by_app:
        _ask(session, ConfirmJob(session.home, release, app), ConfirmResult, after.watch, app)
        return
    started = time.monotonic()
    # The limit comes from the user's terms: the device could report any number of seconds.
    while (waited := time.monotonic() - started) < terms.seconds + _GRACE_S:
        if progress is not None:
            progress(StageProgress("waiting for the app", int(waited), int(terms.seconds)))
        state = _ask(session, StatusJob(session.home, app=app), Status, after.watch, app)
        if state.watch is None or state.watch.release != release:
            _check_served(session.name, state, release, app)
            return
        time.sleep(_POLL_S)
    raise DeviceError(
        f"{session.name}: the app did not confirm {release}, and the device did not roll back",
        hint=f"see '{format_command('status', 'HOST', app)} --log'; to roll back: "
        f"{format_command('rollback', 'HOST', app)}",
    )


def _ask(session: Session, job: object, result: type[R], watch: Watch, app: str) -> R:
    """Send a job; repeat it while another install keeps the device busy, once if the link is lost.

    Raises:
        DeviceError: the device rolled back (``not_confirmed``).
        UnknownStateError: the device could not be asked, or it failed; it may still roll back.
    """
    until = time.monotonic() + watch.seconds
    while True:
        try:
            return _ask_twice(session, job, result)
        except DeviceError as error:
            if error.kind == _WENT_BACK:
                raise
            if error.kind != _BUSY or time.monotonic() > until:
                raise _make_unknown_state_error(session.name, error, watch, app) from error
        time.sleep(_POLL_S)


def _ask_twice(session: Session, job: object, result: type[R]) -> R:
    """Send a job, and send it once more over a new connection if the link was lost."""
    try:
        return session.ask(job, result)
    except DeviceError as error:
        if error.kind:
            raise
        lost = error
    try:
        session.reconnect()
        return session.ask(job, result)
    except DeviceError as error:
        if error.kind:
            raise
        raise lost from error


def _make_unknown_state_error(
    host: str, error: DeviceError, watch: Watch, app: str
) -> UnknownStateError:
    return UnknownStateError(
        f"{error.message}; if the release was confirmed, the device serves {watch.release}; "
        f"otherwise it rolls back to {watch.previous} within {watch.seconds:g} s",
        hint=f"check with '{format_command('status', host, app)}' when the device can be reached",
        transient=True,
    )


def _check_served(host: str, state: Status, release: str, app: str) -> None:
    if state.current is None or state.current.name != release:
        served = state.current.name if state.current else "nothing"
        raise DeviceError(
            f"{host}: the app did not confirm {release} in time; the device rolled back to "
            f"{served}",
            hint=f"to confirm, the app writes {release} to the file 'confirmed' in "
            f"{f'the folder apps/{app} of ' if app else ''}edgekit's folder on the device",
            kind=_WENT_BACK,
        )
