"""Apps: new app folders, and packages that install them without a network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from edgekit.api.arguments import Bundles, Device, Names, resolve_device, resolve_folder
from edgekit.api.failures import convert_failures
from edgekit.api.releases import open_bundle
from edgekit.argument_checks import AnyPath, Text, check_arguments
from edgekit.cache.store import get_default_root
from edgekit.config.output_folders import check_output_file, check_writable
from edgekit.config.profile import load_profile
from edgekit.errors import ArgumentError
from edgekit.packaging.app_settings import NAME_PATTERN
from edgekit.packaging.fetch import FetchReport, fetch_for_profile
from edgekit.packaging.locked_wheels import WheelSource
from edgekit.packaging.package import (
    PackageOptions,
    PackageReport,
    list_missing_models,
    make_request,
    package_for_linux,
)
from edgekit.packaging.package_request import check_not_replaced
from edgekit.packaging.templates import NewApp, list_templates, make_app
from edgekit.packaging.web.web_package import ZIP_SUFFIX, WebReport, package_for_web
from edgekit.progress import Tick, ignore_progress
from edgekit.remote.web.runtime_files import WEB_CACHE, fetch_web_runtime
from edgekit.signing.keys import find_signing_key

__all__ = ["fetch", "list_templates", "new_app", "package"]


@check_arguments
def new_app(
    app: AnyPath,
    bundle: AnyPath | None = None,
    *,
    template: Text,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> NewApp:
    """Write a new app folder from a template, whole or not at all.

    Args:
        app: The folder to write, new or empty; its last part is the name of the app.
        bundle: The folder that ``build`` wrote, or a .edgekit file; without it, app.toml leaves the
            line of the model to you. Relative paths are resolved from ``folder``.
        template: ``image-classifier``, ``detector``, ``audio``, ``text``, ``form`` or
            ``folder-watch``.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The app. Attributes: ``name``; ``folder``; ``template``; ``files``, relative to the folder;
        ``bundle``.

    Raises:
        UserError: The name, the template or the folder cannot be used, or the template is for
            other models.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> made = edgekit.new_app("my-app", outcome.folder, template="form")
        >>> made.name, made.files
        ('my-app', ('app.py', 'app.toml'))
    """
    base = resolve_folder(folder)
    with convert_failures():
        opened = None if bundle is None else open_bundle(base / bundle, progress=progress)
        return make_app(base / Path(app), template, opened)


@check_arguments
def package(
    bundles: Bundles = (),
    *,
    output: AnyPath,
    target: Literal["linux", "web"] = "linux",
    format: Literal["run", "deb"] = "run",
    app: AnyPath | None = None,
    template: Text | None = None,
    name: Text | None = None,
    device: Device | None = None,
    python: Text | None = None,
    glibc: Text | None = None,
    wheels: AnyPath | None = None,
    locked: bool = False,
    key: Text | None = None,
    runtime_archive: AnyPath | None = None,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> PackageReport | WebReport:
    """Package models, their runtime and an app for use without a network.

    Args:
        bundles: Folder that ``build`` wrote, or .edgekit file, or several; those of app.toml if
            there are none. ``NAME=PATH`` names the model that a bundle is. Relative paths are
            resolved from ``folder``.
        output: The file to write, which replaces another one. For ``web`` a folder, or a file that
            ends in ``.zip``.
        target: ``linux``: a file for ``sh FILE`` on devices with Python 3; ``web``: static files
            that run the models in any browser.
        format: ``run``: a file for ``sh``, or ``deb``: a Debian package.
        app: App folder; by default an app is made from the bundle.
        template: Template whose code such an app has.
        name: Name of the app, instead of that in app.toml or of the bundle.
        device: Profile of the device; by default that of the bundles.
        python: Version of the device's Python; by default that of Debian 12.
        glibc: Oldest version of the device's glibc; by default that of Debian 12.
        wheels: Folder that holds all wheels; nothing is downloaded then.
        locked: Refuse wheels that edgekit.lock in the app folder does not hold.
        key: Name of your key to sign with; ``default`` is used if it exists.
        runtime_archive: For ``web``, the archive of onnxruntime-web; npm fetches it otherwise.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The report. Attributes: ``path``; ``format``; ``name`` and ``version`` of the app;
        ``release``; ``platform``; ``bytes``; ``parts``, the bytes of each; ``files``, those of
        yours that are in it; ``wheels``; ``without_license``; ``provided``; ``signed_by``;
        ``notes``; ``seconds``.
        For ``web``: ``path``; ``name``; ``version``; ``release``; ``bytes``; ``gzip_bytes`` of the
        first load; ``parts``, both sizes of each; ``files``; ``runtime``, the version of
        onnxruntime-web; ``notes``; ``seconds``.

    Raises:
        UserError: The app or a bundle cannot be used, or there is no wheel that fits the device.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> made = edgekit.package(outcome.folder, output="digits.run", name="digits")
        >>> made.name, made.path.name, made.bytes < 60e6
        ('digits', 'digits.run', True)
    """
    base = resolve_folder(folder)
    _check_target(
        target,
        {
            "python": python,
            "glibc": glibc,
            "wheels": wheels,
            "locked": locked or None,
            "key": key,
            "format": None if format == "run" else format,
        },
        {"runtime_archive": runtime_archive},
    )
    if app is not None and template is not None:
        raise ArgumentError(("app", "template"), "exclude each other")
    listed = [bundles] if isinstance(bundles, str | os.PathLike) else bundles
    with convert_failures():
        named = resolve_device(base, device)
        options = PackageOptions(
            app=None if app is None else base / app,
            template=template,
            name=name,
            profile=load_profile(named) if named is not None else None,
            python=python,
            glibc=glibc,
            source=WheelSource(
                cache=get_default_root() / "wheels",
                folder=None if wheels is None else base / wheels,
            ),
            must_be_locked=locked,
            key=find_signing_key(key) if target == "linux" else None,
            form=format,
        )
        given = [_split_name(os.fspath(bundle)) for bundle in listed]
        missing = list_missing_models(options, [model for model, _ in given])
        paths = [(model, base / path) for model, path in given] + [*missing.items()]
        opened = [(model, open_bundle(path, progress=progress)) for model, path in paths]
        out = base / output
        if target == "linux" or out.suffix == ZIP_SUFFIX:
            check_output_file(out)
        else:
            check_writable(out.absolute().parent, hint="choose another file: -o FILE")
        request = make_request(opened, options)
        check_not_replaced(request, out)
        if target == "web":
            runtime = fetch_web_runtime(
                get_default_root() / WEB_CACHE,
                archive=None if runtime_archive is None else base / runtime_archive,
                tick=progress,
            )
            return package_for_web(
                request.settings, request.files, request.bundles, runtime, out, tick=progress
            )
        return package_for_linux(request, options, out, progress)


def _check_target(
    target: str, linux_only: Mapping[str, object], web_only: Mapping[str, object]
) -> None:
    """Refuse arguments that have no effect for a target."""
    foreign, other = (linux_only, "linux") if target == "web" else (web_only, "web")
    for name, value in foreign.items():
        if value is not None:
            raise ArgumentError(name, f"is for packages with target {other} only")


@check_arguments
def fetch(
    device: Device,
    *,
    output: AnyPath,
    python: Text | None = None,
    glibc: Text | None = None,
    requires: Names = (),
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> FetchReport:
    """Collect the wheels for a device in a folder, for machines without a network.

    Args:
        device: Profile of the device; the wheels of all its runtimes are collected.
        output: The folder to fill; ``package`` takes it as ``wheels``.
        python: Version of the device's Python; by default that of Debian 12.
        glibc: Oldest version of the device's glibc; by default that of Debian 12.
        requires: Further requirements of your apps, such as ``scipy>=1.11``.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The report. Attributes: ``folder``; ``platform``; ``wheels``; ``notes``.

    Raises:
        UserError: There is no wheel that fits the device.

    Examples:
        >>> import edgekit
        >>> found = edgekit.fetch("tablet-x86", output="wheels")
        >>> "numpy" in [wheel.name for wheel in found.wheels]
        True
    """
    base = resolve_folder(folder)
    with convert_failures():
        return fetch_for_profile(
            load_profile(resolve_device(base, device) or ""),
            base / output,
            python=python,
            glibc=glibc,
            requires=requires,
            cache=get_default_root() / "wheels",
            tick=progress,
        )


def _split_name(text: str) -> tuple[str | None, str]:
    """Split ``NAME=PATH``; a path alone has no name."""
    name, equals, path = text.partition("=")
    return (name, path) if equals and re.fullmatch(NAME_PATTERN, name) else (None, text)
