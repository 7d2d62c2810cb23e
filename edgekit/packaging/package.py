"""Packages of apps: one call from bundles to a file, and the report on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bundle.bundle_file import Bundle
from edgekit.config.profile import DeviceProfile
from edgekit.errors import DeviceError, UserError
from edgekit.packaging.app_settings import load_app, resolve_models
from edgekit.packaging.bundle_facts import get_input_kind
from edgekit.packaging.linux_package import (
    LinuxPackage,
    PackageFormat,
    assemble_package,
    write_package,
)
from edgekit.packaging.lock_file import LOCK_FILE, LockedWheel, encode_lock, read_lock
from edgekit.packaging.locked_wheels import Wheels, WheelSource, collect_wheels
from edgekit.packaging.members import PackagedFile, count_part_bytes
from edgekit.packaging.package_request import (
    PackageRequest,
    make_default_request,
    name_bundles,
    read_app_folder,
    use_bundles,
)
from edgekit.packaging.requirements import list_requests
from edgekit.packaging.target_platform import TargetPlatform, choose_platform, describe_platform
from edgekit.progress import Tick, make_agent_callback
from edgekit.signing.keys import OwnKey
from edgekit_agent.apps.package_format import get_release_name
from edgekit_agent.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class PackageReport:
    """The result of packaging.

    Attributes:
        path: The package file.
        format: Its format: ``run`` or ``deb``.
        name: Name of the app.
        version: Version of the app.
        release: Name of its release on devices.
        platform: Platform that it runs on, in words.
        bytes: Size of the file.
        parts: Bytes of each part in the file's order of size.
        files: Files of the bundles and of the app folder that are in it.
        wheels: Its wheels.
        without_license: Names of the wheels that hold no text of a license.
        provided: Packages that the device itself must have.
        signed_by: Name of the key that signed it; empty if it is not signed.
        notes: Remarks for the user.
        seconds: Time that it took.
    """

    path: Path
    format: PackageFormat
    name: str
    version: str
    release: str
    platform: str
    bytes: int
    parts: dict[str, int]
    files: tuple[PackagedFile, ...]
    wheels: tuple[LockedWheel, ...]
    without_license: tuple[str, ...]
    provided: tuple[str, ...]
    signed_by: str
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PackageOptions:
    """Options of packaging.

    Attributes:
        app: App folder; ``None`` = an app of defaults, or of a template.
        template: Name of a template.
        name: Name of the app, instead of that of the folder or of the bundle.
        profile: Profile of the device; ``None`` = those of the bundles.
        python: Version of the device's Python.
        glibc: Oldest version of the device's glibc.
        source: Where wheels are taken from.
        must_be_locked: Refuse wheels that edgekit.lock does not hold.
        key: Key to sign with; ``None`` = the package is not signed.
        form: Format of the file.
    """

    app: Path | None
    template: str | None
    name: str | None
    profile: DeviceProfile | None
    python: str | None
    glibc: str | None
    source: WheelSource
    must_be_locked: bool
    key: OwnKey | None
    form: PackageFormat


def list_missing_models(options: PackageOptions, given: Sequence[str | None]) -> dict[str, Path]:
    """Return the bundles that app.toml names and the caller does not give, by model.

    Raises:
        UserError: The app folder cannot be used.
    """
    if options.app is None:
        return {}
    settings = load_app(options.app)
    if any(name is None for name in given) and len(settings.models) <= 1:
        return {}
    if not settings.models and given:
        return {}
    named = {name: Path() for name in given if name is not None}
    found = resolve_models(settings, options.app, named)
    return {name: path for name, path in found.items() if name not in named}


def make_request(
    bundles: Sequence[tuple[str | None, Bundle]], options: PackageOptions
) -> PackageRequest:
    """Return the request for a package of bundles, each with the name of its model if it has one.

    Raises:
        UserError: The app and the bundles do not go together.
    """
    if options.app is not None:
        request = read_app_folder(options.app, name=options.name)
        return use_bundles(request, name_bundles(request.settings, bundles))
    if not bundles:
        raise UserError("package: BUNDLE is missing", hint="or give an app folder: --app DIR")
    if len(bundles) > 1:
        raise UserError(
            "several bundles need an app that combines them",
            hint="create one (edgekit app new NAME), write its entry, and give it: --app DIR",
        )
    return make_default_request(bundles[0][1], name=options.name, template=options.template)


def package_for_linux(
    request: PackageRequest, options: PackageOptions, out: Path, tick: Tick
) -> PackageReport:
    """Package an app for Linux devices as one file that installs itself.

    Raises:
        UserError: The app cannot be packaged.
    """
    started = time.monotonic()
    manifests = [bundle.manifest for bundle in request.bundles.values()]
    profiles = [options.profile] if options.profile else [m.profile for m in manifests]
    platform = choose_platform(profiles, options.python, options.glibc)
    for manifest in manifests:
        _check_arch(manifest.name, manifest.profile, platform)
    wheels = _choose_wheels(request, platform, options, tick)
    made = assemble_package(
        request, wheels, platform, glibc=options.glibc, key=options.key, tick=tick
    )
    write_package(out, made, options.form, tick)
    notes = [*platform.notes, *_note_samples(request)]
    if request.folder is not None and not wheels.is_locked:
        path = request.folder / LOCK_FILE
        platforms = {**read_lock(path).platforms, platform.label: wheels.entries}
        write_atomic(str(path), encode_lock(platforms))
        notes.append(f"wrote {path}: keep it with the app")
    return _report(made, wheels, out, options, tuple(notes), started)


def _note_samples(request: PackageRequest) -> list[str]:
    """Return a note on each model whose golden samples are made from real samples."""
    return [
        f"models/{name}/{bundle.manifest.golden_samples} holds coarse copies of calibration "
        'samples; to build without them: [golden] samples = "synthetic"'
        for name, bundle in request.bundles.items()
        if bundle.manifest.golden_kind != "synthetic"
    ]


def _check_arch(name: str, profile: DeviceProfile, platform: TargetPlatform) -> None:
    if profile.hardware.arch != platform.python.arch:
        raise UserError(
            f"the bundle {name} was built for {profile.name} ({profile.hardware.arch}), and the "
            f"package is for {platform.python.arch}",
            hint="build it for the profile of the device",
        )


def _choose_wheels(
    request: PackageRequest, platform: TargetPlatform, options: PackageOptions, tick: Tick
) -> Wheels:
    tick("choosing the wheels", 0, 0)
    kinds = {get_input_kind(bundle) for bundle in request.bundles.values()}
    manifests = [bundle.manifest for bundle in request.bundles.values()]
    try:
        requests = list_requests(
            manifests,
            platform.python,
            inputs=kinds | {request.settings.input},
            requires=request.settings.requires,
        )
    except DeviceError as error:
        raise UserError(error.message, hint=error.hint) from error
    lock = read_lock(request.folder / LOCK_FILE).get(platform.label) if request.folder else ()
    if options.must_be_locked and request.folder is None:
        raise UserError(f"--locked: needs an app folder with its {LOCK_FILE}", hint="give --app")
    source = replace(options.source, progress=make_agent_callback(tick))
    return collect_wheels(
        requests, platform, source, lock=lock, must_be_locked=options.must_be_locked
    )


def _report(
    made: LinuxPackage,
    wheels: Wheels,
    out: Path,
    options: PackageOptions,
    notes: tuple[str, ...],
    started: float,
) -> PackageReport:
    package = made.package
    return PackageReport(
        path=out,
        format=options.form,
        name=package.name,
        version=package.version,
        release=get_release_name(made.statement),
        platform=describe_platform(package.arch, package.python, package.glibc),
        bytes=out.stat().st_size,
        parts=count_part_bytes(made.members),
        files=tuple(
            PackagedFile(path=path, source=member.source, bytes=len(member.data))
            for path, member in sorted(made.members.items())
            if member.source
        ),
        wheels=wheels.entries,
        without_license=made.without_license,
        provided=made.provided,
        signed_by=options.key.name if options.key is not None else "",
        notes=notes,
        seconds=time.monotonic() - started,
    )
