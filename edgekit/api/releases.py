"""Functions for the releases on a device: push, roll back, and ask for the state and the facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from edgekit.api.arguments import (
    AppName,
    Count,
    Device,
    HomePath,
    Seconds,
    choose_home,
    resolve_folder,
)
from edgekit.api.failures import convert_failures
from edgekit.argument_checks import AnyPath, Host, check_arguments
from edgekit.bundle import bundle_file, sent_files
from edgekit.bundle.bundle_file import Bundle
from edgekit.bundle.golden_samples import check_golden_samples
from edgekit.bundle.package_file import AppPackage, is_package_file, open_app_package
from edgekit.bundle.sent_files import SentFiles
from edgekit.cache.store import get_default_root
from edgekit.errors import ArgumentError
from edgekit.progress import Tick, ignore_progress, make_agent_callback
from edgekit.remote import deploy, push_package
from edgekit.remote import uninstall as remote_uninstall
from edgekit.remote.confirmation import WatchTerms, choose_watch_terms
from edgekit.remote.deploy import PushReport
from edgekit.remote.home import Home
from edgekit.remote.session import Session, open_session
from edgekit_agent.results import DeviceFacts, Status, UninstallResult

R = TypeVar("R")


@check_arguments
def open_bundle(path: AnyPath, *, progress: Tick = ignore_progress) -> Bundle:
    """Open a bundle and check each of its files and its signature.

    Args:
        path: The folder that ``build`` wrote, or a .edgekit file.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The bundle. Attributes: ``path``; ``manifest``; ``signature``, ``None`` if it is not signed.

    Raises:
        UserError: The path is no bundle, or the bundle was changed or is damaged.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> bundle = edgekit.open_bundle(outcome.folder)
        >>> bundle.manifest.name, bundle.manifest.format
        ('tablet-x86', 'onnx')
    """
    progress("checking the bundle", 0, 0)
    with convert_failures():
        bundle = bundle_file.open_bundle(Path(path))
        bundle.check()
        name = bundle.manifest.golden_samples
        check_golden_samples(BytesIO(bundle.read(name)), f"{path}: {name}")
    return bundle


def list_sent_files(bundle: Bundle | AppPackage) -> SentFiles:
    """List the files that a device gets, with a word on real samples in them."""
    if isinstance(bundle, AppPackage):
        return sent_files.list_package_files(bundle)
    return sent_files.list_sent_files(bundle.manifest)


def open_delivery(path: AnyPath, *, progress: Tick = ignore_progress) -> Bundle | AppPackage:
    """Open a bundle, or the package file of an app, and check each of its files.

    Raises:
        UserError: The path is neither, or it is damaged.
    """
    if not is_package_file(Path(path)):
        return open_bundle(path, progress=progress)
    progress("checking the package", 0, 0)
    with convert_failures():
        return open_app_package(Path(path))


@check_arguments
def push(
    bundle: AnyPath | Bundle | AppPackage,
    host: Host,
    *,
    name: AppName | None = None,
    home: HomePath | Home | None = None,
    device: Device | None = None,
    allow_downgrade: bool = False,
    watch: Seconds | None = None,
    app_confirms: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> PushReport:
    """Install a bundle or an app on a device, check it there, and switch to it.

    Args:
        bundle: The folder that ``build`` wrote, a .edgekit file, the file of an app that
            ``package`` wrote, or an opened bundle; a relative path is resolved from ``folder``.
        host: ``local``, an ssh alias, or ``user@host:port``.
        name: Name to install it under, next to the releases of other names.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        device: Profile that may name this folder; by default that of edgekit.toml.
        allow_downgrade: Allow a lower version; needs a key that the device trusts.
        watch: Seconds in which the release must be confirmed, else the device rolls back; by
            default 30, and 0 for ``local``.
        app_confirms: Let the app on the device confirm the release, not edgekit.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The report. Attributes: ``host``; ``release``; ``previous`` release; ``runtime``;
        ``sent_bytes``; ``health``; ``watch``, the confirmation; ``seconds``; ``notes``; ``name``;
        ``sent``, the files with a word on real samples in them.

    Raises:
        UserError: The bundle cannot be used.
        DeviceError: The device could not be reached, or the installation failed; it serves the same
            release as before.
        UnknownStateError: It is unknown which release the device serves.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> done = edgekit.push(outcome.folder, "local")
        >>> done.release == edgekit.status("local").current.name
        True
    """
    base = resolve_folder(folder)
    if not isinstance(bundle, Bundle | AppPackage):
        bundle = open_delivery(base / bundle, progress=progress)
    where = choose_home(home, device, folder=base)
    if isinstance(bundle, AppPackage):
        return _push_package(
            bundle,
            host,
            name,
            where,
            allow_downgrade=allow_downgrade,
            watch=choose_watch_terms(host, watch, by_app=app_confirms),
            progress=progress,
        )
    with convert_failures(), open_session(host, home=where) as session:
        done = deploy.push(
            bundle,
            session,
            cache=get_default_root() / "wheels",
            progress=make_agent_callback(progress),
            allow_downgrade=allow_downgrade,
            watch=choose_watch_terms(host, watch, by_app=app_confirms),
            app=name or "",
        )
        meant = bundle.manifest.profile.connection.home
        if not meant or where.path:
            return done
        note = f"installed in {session.home}; the bundle's folder was not used"
        return replace(done, notes=(f"{note} (to use it: --home {meant})",))


def _push_package(
    package: AppPackage,
    host: str,
    name: str | None,
    home: Home,
    *,
    allow_downgrade: bool,
    watch: WatchTerms,
    progress: Tick,
) -> PushReport:
    """Install an app where its package file would install it."""
    own = package.package.name
    if name not in (None, own):
        raise ArgumentError("name", f"{package.path} is the app {own}", hint="leave it out")
    where = home if home.rule == "said" else Home(path=push_package.APP_HOME, rule="said")
    with convert_failures(), open_session(host, home=where) as session:
        return push_package.push_package(
            package,
            session,
            progress=make_agent_callback(progress),
            allow_downgrade=allow_downgrade,
            watch=watch,
        )


@check_arguments
def rollback(
    host: Host,
    *,
    name: AppName | None = None,
    home: HomePath | Home | None = None,
    device: Device | None = None,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> Status:
    """Return to the previous release of a device, if it passes the health check.

    Args:
        host: ``local``, an ssh alias, or ``user@host:port``.
        name: Name of the releases; by default those that were pushed without a name.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        device: Profile that may name this folder; by default that of edgekit.toml.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The new status, as of ``status``.

    Raises:
        DeviceError: There is no previous release, or it is not healthy.
        UnknownStateError: It is unknown which release the device serves.

    Examples:
        >>> import edgekit
        >>> for steps in (["clean"], ["float16"]):
        ...     outcome = edgekit.build(steps=steps, allow_failing=True)
        ...     pushed = edgekit.push(outcome.folder, "local")
        >>> edgekit.rollback("local").current.name == pushed.previous
        True
    """
    where = choose_home(home, device, folder=folder)
    return ask_host(host, lambda session: deploy.rollback(session, app=name or ""), where, progress)


@check_arguments
def status(
    host: Host,
    *,
    log: Count = 0,
    name: AppName | None = None,
    home: HomePath | Home | None = None,
    device: Device | None = None,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> Status:
    """Ask a device for its current and its previous release.

    Args:
        host: ``local``, an ssh alias, or ``user@host:port``.
        log: Number of entries of the audit log to return.
        name: Name of the releases; by default those that were pushed without a name.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        device: Profile that may name this folder; by default that of edgekit.toml.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The status. Attributes: ``current`` and ``previous``, each a release or ``None``;
        ``current_model`` and ``previous_model``, where the models come from; ``health``; ``trust``,
        the keys that the device trusts; ``watch``; ``log``; ``apps``, the releases of all names,
        unless a name is given.

    Raises:
        DeviceError: The device could not be reached, or failed.

    Examples:
        >>> import edgekit
        >>> edgekit.status("local").previous is None
        True
    """
    where = choose_home(home, device, folder=folder)
    return ask_host(
        host, lambda session: deploy.status(session, log=log, app=name or ""), where, progress
    )


@check_arguments
def uninstall(
    host: Host,
    name: AppName,
    *,
    home: HomePath | Home | None = None,
    device: Device | None = None,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> UninstallResult:
    """Remove the releases of a name from a device; all others stay.

    Args:
        host: ``local``, an ssh alias, or ``user@host:port``.
        name: The name that they were installed under.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        device: Profile that may name this folder; by default that of edgekit.toml.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The removal. Attributes: ``release``, the one that was served; ``runtimes`` that were
        removed because nothing else uses them; ``boot_problem``, why the start of its watcher at
        boot could not be removed.

    Raises:
        DeviceError: Nothing is installed under this name, or the device could not be reached.
        UnknownStateError: It is unknown whether the name was removed.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> done = edgekit.push(outcome.folder, "local", name="door")
        >>> edgekit.uninstall("local", "door").release == done.release
        True
    """
    where = choose_home(home, device, folder=folder)
    return ask_host(
        host, lambda session: remote_uninstall.uninstall(session, name), where, progress
    )


@check_arguments
def probe(
    host: Host,
    *,
    home: HomePath | Home | None = None,
    device: Device | None = None,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> DeviceFacts:
    """Read the processor, the memory and the runtimes of a device.

    Args:
        host: ``local``, an ssh alias, or ``user@host:port``.
        home: edgekit's folder on the device; a relative one is below the user's home there.
        device: Profile that may name this folder; by default that of edgekit.toml.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        Facts of the device. Attributes: ``machine``, ``cpu``, ``cores``, ``isa``, ``memory_bytes``,
        ``free_memory_bytes``, ``free_disk_bytes``, ``runtimes`` and others.

    Raises:
        DeviceError: The device could not be reached, or failed.

    Examples:
        >>> import edgekit, os
        >>> edgekit.probe("local").machine == os.uname().machine
        True
    """
    where = choose_home(home, device, folder=folder)
    return ask_host(host, _read_facts, where, progress, stage="probing")


def _read_facts(session: Session) -> DeviceFacts:
    return session.facts(deploy.find_sites(deploy.status(session)))


def ask_host(
    host: str, ask: Callable[[Session], R], home: Home, progress: Tick, *, stage: str = "asking"
) -> R:
    """Open a session with a host, ask it, and return the answer."""
    progress(f"{host}: {stage}", 0, 0)
    with convert_failures(), open_session(host, home=home) as session:
        return ask(session)
