"""Watch over a new release: unless it is confirmed in time, the device goes back by itself.

The watch is written to disk before the switch, and a separate process waits for the confirmation. A
reboot counts as no confirmation: the watcher that starts at boot sees that the watch is of an
earlier boot.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Optional

from edgekit_agent.boot.start import prepare_boot, start_now, watcher_command
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, open_regular, write_atomic
from edgekit_agent.jobs import ConfirmJob
from edgekit_agent.releases.audit import add_line
from edgekit_agent.releases.current import current_release, is_app, switch
from edgekit_agent.releases.homes import Home, open_home
from edgekit_agent.releases.store import find_damaged_files, lock_home, read_release
from edgekit_agent.results import ConfirmResult, Watch
from edgekit_agent.strictjson import load
from edgekit_agent.trust.keys import check_not_revoked, try_read_trust

PENDING, CONFIRMED = "watch.json", "confirmed"
MOST_SECONDS = 24 * 3600.0
_MOST_BYTES = 1 << 16
_POLL_S, _MOST_POLL_S = 0.5, 60.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def begin_watch(home: Home, release: str, previous: str, seconds: float) -> Watch:
    """Watch a release that is about to be served. The home must be locked.

    Args:
        home: home of the release.
        release: the release to confirm.
        previous: the release that is served again without a confirmation.
        seconds: time limit of the confirmation.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(home.path, CONFIRMED))
    start = prepare_boot(home.path)
    watch = Watch(
        release=release,
        previous=previous,
        seconds=seconds,
        until_s=_now_s() + seconds,
        boot=_read_boot_id(),
        after_reboot=start.mechanism,
        boot_problem=start.problem,
    )
    text = json.dumps(encode(watch), allow_nan=False)
    write_atomic(os.path.join(home.path, PENDING), text.encode(), is_private=True)
    subprocess.Popen(
        watcher_command(home.path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # it survives the loss of the connection
    )
    start_now(home.path, start)
    return watch


def read_pending_watch(home: Home) -> Optional[Watch]:
    """Read the watch of a release that waits for confirmation; ``None`` if none or damaged."""
    try:
        with open_regular(os.path.join(home.path, PENDING)) as file:
            return decode(Watch, load(file, _MOST_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def settle_watch(home: Home, release: str) -> None:
    """End the watch of an earlier release before another is installed. The home must be locked.

    Raises:
        AgentError: ``busy``: the earlier release still waits for its confirmation.
    """
    watch = read_pending_watch(home)
    if watch is None or watch.release == release:
        return
    if not _is_due(watch) and current_release(home) == watch.release:
        raise AgentError(
            "busy",
            f"{watch.release} must be confirmed within {watch.until_s - _now_s():.0f} s",
            hint="wait until it is confirmed or rolled back, then run the command again",
            transient=True,
        )
    _end_watch(home, watch)


def drop_watch(home: Home) -> None:
    """Remove the watch. The home must be locked."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(home.path, PENDING))
        fsync_folder(home.path)


def confirm(job: ConfirmJob) -> ConfirmResult:
    """Confirm that a release works, so that it stays served.

    A confirmation is never too late as long as the device has not gone back.

    Raises:
        AgentError: ``not_confirmed``: the device went back, or it serves another one; ``busy``.
    """
    home = open_home(job.home, job.app)
    with lock_home(home, creates=False):
        watch = read_pending_watch(home)
        served = current_release(home)
        if served != job.release:
            raise AgentError(
                "not_confirmed",
                f"{job.release[:40]} was not confirmed in time: the device serves "
                f"{served or 'nothing'}",
                hint="push it again, with a longer --watch",
            )
        if watch is not None and watch.release == served:
            _record_confirmation(home, watch, "done")
    return ConfirmResult(served)


def run_watch(path: str) -> int:
    """Wait until the release of a home is confirmed, and go back if it is not.

    It is started at the switch, and once at every boot.
    """
    home = open_home(path)
    pause_s = _POLL_S
    while True:
        watch = read_pending_watch(home)
        if watch is None:
            return 0
        if _is_due(watch) or _has_app_confirmed(home, watch):
            try:
                with lock_home(home, creates=False):
                    if read_pending_watch(home) == watch:
                        _end_watch(home, watch)
                if current_release(home) != watch.release and is_app(home):
                    _restart_app(path)
            except AgentError:
                pass  # busy, or not writable now: try again
            except OSError:  # the disk is full or failing now: try again, at growing intervals
                pause_s = min(2 * pause_s, _MOST_POLL_S)
        time.sleep(pause_s)


def _end_watch(home: Home, watch: Watch) -> None:
    """Confirm or go back, once the time of a watch is over or it was confirmed."""
    if current_release(home) != watch.release:
        drop_watch(home)  # the install was interrupted before the switch, or a rollback was run
    elif _has_app_confirmed(home, watch) and watch.boot == _read_boot_id():
        _record_confirmation(home, watch, "done: by the app")
    else:
        _go_back(home, watch)


def _record_confirmation(home: Home, watch: Watch, result: str) -> None:
    drop_watch(home)
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(home.path, CONFIRMED))
    add_line(home, "confirm", result, release=watch.release)


def _go_back(home: Home, watch: Watch) -> None:
    why = "no confirmation" if watch.boot == _read_boot_id() else "rebooted without a confirmation"
    try:
        previous = read_release(home, watch.previous)
        check_not_revoked(try_read_trust(home), previous.key)
        damaged = find_damaged_files(home, previous)
        if damaged:
            raise AgentError("corrupt", f"damaged: {', '.join(damaged)}")
        switch(home, watch.previous)
    except AgentError as error:  # it cannot be served again
        message = f"{error.failure.kind}: {error.failure.message}"
        add_line(home, "go back", message, release=watch.previous)
    else:
        add_line(home, "go back", f"done: {why} of {watch.release}", release=watch.previous)
    drop_watch(home)


def _restart_app(path: str) -> None:
    """Start the app of a home again if it runs, so that it serves the current release."""
    # Imported when needed: apps stand above the watch.
    from edgekit_agent.apps.installed import find_app_of_home
    from edgekit_agent.apps.serving.running import restart

    restart(find_app_of_home(path))


def _has_app_confirmed(home: Home, watch: Watch) -> bool:
    """Return whether the app has written the name of the release to the file ``confirmed``."""
    try:
        # Do not block if the file is a pipe.
        handle = os.open(os.path.join(home.path, CONFIRMED), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(handle, 200).strip() == watch.release.encode()
        finally:
            os.close(handle)
    except OSError:
        return False


def _is_due(watch: Watch) -> bool:
    return watch.boot != _read_boot_id() or _now_s() >= watch.until_s


def _now_s() -> float:
    """Return the seconds since boot, including suspend; setting the clock does not change them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def _read_boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read(100).strip()
    except OSError:
        return ""
