"""Installation of a package: check, stage, self-check, switch; kept files are repaired."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Dict, Iterator, List, Optional

from edgekit_agent.apps.admission import Admission, check_signed, record_admission
from edgekit_agent.apps.device_checks import check_device
from edgekit_agent.apps.installed import (
    App,
    check_is_app,
    find_damaged_files,
    get_site,
    make_command,
    make_public_folder,
    read_settings,
)
from edgekit_agent.apps.launcher import check_launcher, write_launcher
from edgekit_agent.apps.package_file import PackageReader
from edgekit_agent.apps.package_format import PACKAGE, Package, PackageFile, get_runtime_name
from edgekit_agent.apps.removal import remove_leftovers
from edgekit_agent.apps.self_check import QuietOutlet
from edgekit_agent.apps.waiting import Ticker
from edgekit_agent.boot.watch import begin_watch, settle_watch
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, is_intact, temporary_name, write_atomic
from edgekit_agent.jobs import UninstallJob
from edgekit_agent.limits import get_expand_limits, get_expansion_limit
from edgekit_agent.releases import runtime_files
from edgekit_agent.releases.cleanup import remove_unneeded
from edgekit_agent.releases.current import current_release, previous_release, switch
from edgekit_agent.releases.homes import Home, claim, share
from edgekit_agent.releases.records import RECORD, read_record, write_record
from edgekit_agent.releases.store import discard, lock_home, lock_main, remove, sweep
from edgekit_agent.releases.uninstall import uninstall
from edgekit_agent.releases.wheels import WheelSource, count_unpacked_bytes, unpack_wheels
from edgekit_agent.results import Release
from edgekit_agent.supervise import run_in_worker
from edgekit_agent.trust.statements import Signature
from edgekit_agent.worker_jobs import Blob, ExpandJob

_LOCK_WAIT_S = 600.0


@dataclass(frozen=True)
class Installed:
    """The result of an installation.

    Attributes:
        release: the release that is served now.
        before: the release that was served before; ``None`` if there was none.
        is_changed: something was written.
        models: health of the models, as ``check`` reports it.
    """

    release: str
    before: Optional[str]
    is_changed: bool
    models: List[Dict[str, Any]]


def install_package(
    reader: PackageReader,
    app: App,
    ticker: Ticker,
    *,
    permit: Optional[Signature] = None,
    watch_s: float = 0.0,
) -> Installed:
    """Install a package beside the served release, check it, then switch to it.

    At every moment the app is the old one or the new one, complete, also after a power cut. Of a
    release that is here already, damaged files are replaced.

    Args:
        reader: the package.
        app: the app.
        ticker: told about the stages.
        permit: the signed permit to install a lower version.
        watch_s: seconds in which the release must be confirmed, else the device goes back; 0 = it
            needs no confirmation.

    Raises:
        AgentError: ``unsuitable``, ``noexec``, ``no_space``, ``corrupt``, ``foreign_file``,
            ``foreign_home``, ``unhealthy``, ``busy``; refusals of a device that trusts keys.
            In all these cases the app is as it was before.
    """
    ticker.begin("checking the package")
    check_device(reader.package, Home(app.home.main_path), _count_needed_bytes(reader, app))
    check_launcher(app)
    reader.verify(ticker.report)
    admission = check_signed(reader, app.home, permit)
    is_first = not os.path.isdir(app.home.path)
    _make_folders(app)
    try:
        with _lock(app.home, ticker):
            return _install(reader, app, admission, ticker, watch_s)
    except BaseException:
        if is_first:
            _undo_first(app)
        raise


def _install(
    reader: PackageReader,
    app: App,
    admission: Optional[Admission],
    ticker: Ticker,
    watch_s: float,
) -> Installed:
    home, release = app.home, reader.release
    check_is_app(app)
    settle_watch(home, release)
    sweep(home)
    with lock_main(home):
        sweep(Home(home.main_path))
        is_changed = _provide_runtime(reader, home, ticker)
        if os.path.isdir(home.release(release)):
            is_changed |= _repair(reader, home, ticker)
        else:
            _stage(reader, home, ticker)
            is_changed = True
    served = current_release(home)
    try:
        ticker.begin("checking the app")
        models = run_self_check(app, release)
    except BaseException:
        if release not in (served, previous_release(home)):
            discard(home, "releases", release)
        raise
    # The self-check has compiled modules; they must be complete before they are served.
    os.sync()
    if admission is not None:
        record_admission(home, admission)
        _record_key(home, release, admission)
    if watch_s and served not in (None, release):
        begin_watch(home, release, served, watch_s)
    switch(home, release)
    is_changed |= write_launcher(app) or served != release
    # The app is installed: a failure to remove old files must not hide that.
    with contextlib.suppress(OSError):
        remove_unneeded(home)
    return Installed(release, served, is_changed, models)


def _make_folders(app: App) -> None:
    """Create the folders below the prefix; what root installs in a new one, all users may run."""
    make_public_folder(os.path.dirname(app.home.main_path))
    if os.geteuid() == 0 and not os.path.lexists(app.home.main_path):
        claim(Home(app.home.main_path))
        os.chmod(app.home.main_path, 0o755)


def _undo_first(app: App) -> None:
    """Remove what a first installation that failed has left, unless the app is served."""
    with contextlib.suppress(OSError, AgentError):
        if os.path.isdir(app.home.path) and current_release(app.home) is None:
            uninstall(UninstallJob(app.home.main_path, app.name))
            remove_leftovers(app)


def run_self_check(app: App, release: str) -> List[Dict[str, Any]]:
    """Check a release with its own code, in a process of its own.

    Raises:
        AgentError: ``unhealthy``: it does not work on this device.
    """
    command = make_command(app, release, ["self-check"])
    checked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        models: List[Dict[str, Any]] = json.loads(checked.stdout)["models"]
    except (ValueError, KeyError, TypeError):
        models = []
    if checked.returncode == 0 and models:
        return models
    lines = checked.stderr.decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"its self-check ended with status {checked.returncode}"
    raise AgentError("unhealthy", f"the new release does not work on this device: {reason}")


@contextlib.contextmanager
def _lock(home: Home, ticker: Ticker) -> Iterator[None]:
    """Lock the home of the app, after waiting for another installation to finish."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    ticker.begin("waiting for another installation to finish")
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_home(home))
                break
            except AgentError as error:
                if error.failure.kind != "busy" or time.monotonic() > deadline:
                    raise
        yield


def _provide_runtime(reader: PackageReader, home: Home, ticker: Ticker) -> bool:
    """Unpack the wheels unless they are here and intact; return whether they were unpacked."""
    site = get_site(home, reader.package)
    if site is None or (os.path.isdir(site) and not runtime_files.find_damaged_files(site)):
        return False
    ticker.begin("unpacking the runtime")

    def report(stage: str, done: int, total: int, part: Optional[Dict[str, Any]] = None) -> None:
        ticker.report(done, total)

    name = get_runtime_name(reader.package)
    unpack_wheels(Home(home.main_path), name, _list_wheels(reader), report)
    return True


def _list_wheels(reader: PackageReader) -> List[WheelSource]:
    return [
        WheelSource(os.path.basename(path), partial(reader.open_stored, path))
        for path in reader.package.wheels
    ]


def _stage(reader: PackageReader, home: Home, ticker: Ticker) -> None:
    """Assemble a release in a staging folder, then rename that to the name of the release."""
    staging = home.staging("releases")
    os.mkdir(staging)
    try:
        _fill(reader, home, staging, ticker)
        write_record(staging, _build_record(reader, home, staging))
        share(home, staging)
        # One flush for all files: hundreds of single ones take long on an SD card.
        os.sync()
        os.rename(staging, home.release(reader.release))
        fsync_folder(home.folder("releases"))
    except BaseException:
        remove(staging)
        raise


def _fill(reader: PackageReader, home: Home, folder: str, ticker: Ticker) -> None:
    files = reader.package.list_installed()
    ticker.begin("unpacking the app")
    for number, file in enumerate(files):
        ticker.report(number, len(files))
        _extract(reader, home, file, os.path.join(folder, file.installed_path))
    write_atomic(os.path.join(folder, PACKAGE), reader.data)


def _extract(reader: PackageReader, home: Home, file: PackageFile, target: str) -> None:
    """Write a member, expanded if it is packed, to a new file."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if reader.copy_expanded(file, target):
        return
    if not file.is_packed:
        reader.copy(file, target)
        return
    packed = temporary_name(target)
    try:
        reader.copy(file, packed)
        _expand(reader.package, home, file, packed, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(packed)


def _expand(package: Package, home: Home, file: PackageFile, packed: str, target: str) -> None:
    if file.expanded_bytes > get_expansion_limit(file.bytes):
        what = f"{file.bytes} bytes state an expanded size of {file.expanded_bytes}"
        raise AgentError("corrupt", f"{file.path}: {what}", hint="package the app again")
    blob = Blob(file.expanded_digest, file.expanded_bytes, file.digest, file.bytes, "packed")
    outlet = QuietOutlet()
    try:
        job = ExpandJob(packed, target, blob, get_site(home, package))
        run_in_worker(job, outlet, get_expand_limits(file.expanded_bytes))
    finally:
        outlet.close()


def _repair(reader: PackageReader, home: Home, ticker: Ticker) -> bool:
    """Replace every damaged file of a release that is here; return whether there was one."""
    ticker.begin("checking the installed files")
    folder = home.release(reader.release)
    damaged = set(find_damaged_files(folder, reader.package))
    for file in reader.package.list_installed():
        if file.installed_path in damaged:
            _replace(reader, home, file, os.path.join(folder, file.installed_path))
    statement = os.path.join(folder, PACKAGE)
    if not is_intact(statement, hashlib.sha256(reader.data).hexdigest()):
        write_atomic(statement, reader.data)
        damaged.add(PACKAGE)
    if _refresh_record(reader, home, folder) or damaged:
        share(home, folder)
        os.sync()
        return True
    return False


def _refresh_record(reader: PackageReader, home: Home, folder: str) -> bool:
    """Write the record anew if it is damaged; return whether it was."""
    wanted = _build_record(reader, home, folder)
    try:
        if replace(read_record(folder), installed_at=wanted.installed_at) == wanted:
            return False
    except (OSError, ValueError):
        pass
    write_record(folder, wanted)
    return True


def _record_key(home: Home, release: str, admission: Admission) -> None:
    """Record who signed the release, so that it is not served again once the key is revoked."""
    folder, signed = home.release(release), admission.statement
    record = replace(read_record(folder), key=signed.key, version=signed.version)
    write_record(folder, record)
    share(home, os.path.join(folder, RECORD))


def _replace(reader: PackageReader, home: Home, file: PackageFile, path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove(path)
    temporary = temporary_name(path)
    try:
        _extract(reader, home, file, temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _build_record(reader: PackageReader, home: Home, folder: str) -> Release:
    """Return the record by which ``cleanup`` knows the runtime of a release."""
    package = reader.package
    settings = [read_settings(folder, model) for model in package.models]
    return Release(
        name=reader.release,
        model=settings[0].model,
        runtime=package.models[0].runtime,
        threads=package.models[0].threads,
        site=get_site(home, package),
        golden_samples=settings[0].golden_samples,
        installed_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        max_relative_error=settings[0].max_relative_error,
    )


def _count_needed_bytes(reader: PackageReader, app: App) -> int:
    """Return the bytes that the installation may write; 0 for files that are here already."""
    needed = 0
    if not os.path.isdir(app.home.release(reader.release)):
        files = reader.package.list_installed()
        needed += sum(file.installed_bytes for file in files)
        needed += sum(file.bytes for file in files if file.is_packed)
    site = get_site(app.home, reader.package)
    if site is not None and not os.path.isdir(site):
        needed += count_unpacked_bytes(_list_wheels(reader))
    return needed
