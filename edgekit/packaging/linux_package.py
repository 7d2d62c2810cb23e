"""Package files for Linux: a shell header and a zip file with all that the app needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from packaging.utils import parse_wheel_filename

from edgekit.bundle.bundle_file import Bundle, encode_signature
from edgekit.bundle.manifest import MANIFEST, PACKED, SIGNATURE
from edgekit.config.shipped_files import get_shipped_folder, iter_files
from edgekit.errors import UserError
from edgekit.packaging.deb import write_deb
from edgekit.packaging.licenses import WheelLicense, read_license, read_own_license
from edgekit.packaging.lock_file import LOCK_FILE, LockedWheel, encode_lock
from edgekit.packaging.locked_wheels import Wheels
from edgekit.packaging.members import Member, describe_members, write_zip
from edgekit.packaging.package_request import PackageRequest
from edgekit.packaging.page_config import BACKEND_OF_SERVER, encode_page_config
from edgekit.packaging.sbom import encode_sbom
from edgekit.packaging.target_platform import TargetPlatform
from edgekit.packaging.wheel_contents import WheelContents, read_contents
from edgekit.progress import Tick
from edgekit.remote.agent_file import read_agent_sources
from edgekit.remote.python_tags import DevicePython
from edgekit.signing.keys import OwnKey
from edgekit.signing.packages import sign_package
from edgekit_agent.apps.package_format import (
    MAIN,
    PACKAGE,
    Package,
    PackagedModel,
    encode_package,
)
from edgekit_agent.apps.package_format import SIGNATURE as PACKAGE_SIGNATURE
from edgekit_agent.files import open_atomic

PackageFormat = Literal["run", "deb"]
SBOM = "sbom.cdx.json"
HEADER = "header.sh"
_OLDEST_GLIBC_MINOR = 17


@dataclass(frozen=True, kw_only=True)
class LinuxPackage:
    """A package for Linux, ready to be written.

    Attributes:
        package: The statement ``package.json``.
        statement: Its bytes.
        members: The other members by path.
        signature: Bytes of ``signature.json``; ``None`` = it is not signed.
        without_license: Names of the wheels without the text of a license.
        provided: Names of packages that the device itself must have.
    """

    package: Package
    statement: bytes
    members: dict[str, Member]
    signature: bytes | None
    without_license: tuple[str, ...]
    provided: tuple[str, ...]


def assemble_package(
    request: PackageRequest,
    wheels: Wheels,
    platform: TargetPlatform,
    *,
    glibc: str | None,
    key: OwnKey | None,
    tick: Tick,
) -> LinuxPackage:
    """Assemble the package of an app in memory.

    Args:
        request: The app and its bundles.
        wheels: Its wheels.
        platform: The platform of the device.
        glibc: Oldest version of glibc if the user stated one, else the wheels decide.
        key: Key to sign with.
        tick: Called with a stage, the amount done and the total.

    Raises:
        UserError: A bundle or a wheel is damaged, or the app exceeds the limits of packages.
    """
    contents = _read_wheels(wheels, tick)
    members = _collect_runtime(wheels, contents)
    members |= _collect_models(request.bundles, tick)
    members |= _collect_app(request)
    license_members, licenses = _collect_licenses(wheels)
    members |= license_members
    members[LOCK_FILE] = Member(data=encode_lock({platform.label: wheels.entries}), part="licenses")
    members[SBOM] = Member(data=_encode_sbom(request, licenses, contents), part="licenses")
    package = _describe_package(request, members, platform, glibc, wheels)
    try:
        statement = encode_package(package)
    except ValueError as error:
        raise UserError(f"the app cannot be packaged: {error}") from error
    profile = next(iter(request.bundles.values())).manifest.profile.name
    return LinuxPackage(
        package=package,
        statement=statement,
        members=members,
        signature=(
            encode_signature(sign_package(key, package, statement, profile=profile))
            if key is not None
            else None
        ),
        without_license=tuple(wheel.name for wheel, found in licenses if not found.texts),
        provided=wheels.provided,
    )


def write_package(path: Path, made: LinuxPackage, form: PackageFormat, tick: Tick) -> None:
    """Write a package file, whole or not at all.

    Args:
        path: The file.
        made: The package.
        form: ``run``: a file for ``sh``, or ``deb``: a Debian package.
        tick: Called with a stage, the amount done and the total.
    """
    with open_atomic(str(path)) as file:
        if form == "run":
            _write_run_file(file, made, path.name, tick)
            return
        buffer = BytesIO()
        _write_run_file(buffer, made, path.name, tick)
        write_deb(file, made.package, buffer.getvalue(), made.provided)


def _write_run_file(file: BinaryIO, made: LinuxPackage, name: str, tick: Tick) -> None:
    contents = {path: member.data for path, member in made.members.items()}
    contents[PACKAGE] = made.statement
    if made.signature is not None:
        contents[PACKAGE_SIGNATURE] = made.signature
    file.write((get_shipped_folder("targets/linux") / HEADER).read_bytes())
    write_zip(file, contents, lambda done, total: tick(f"writing {name}", done, total))


def _read_wheels(wheels: Wheels, tick: Tick) -> dict[str, WheelContents]:
    """Read the wheels without the files that are never loaded, by the names of their packages."""
    contents: dict[str, WheelContents] = {}
    for number, (path, wheel) in enumerate(wheels.files):
        tick("reading the wheels", number, len(wheels.files))
        contents[wheel.name] = read_contents(path, wheel.name)
    return contents


def _collect_runtime(wheels: Wheels, contents: Mapping[str, WheelContents]) -> dict[str, Member]:
    members = {
        f"wheels/{wheel.file}": Member(data=contents[wheel.name].data, part="runtime")
        for wheel in wheels.entries
    }
    for name, data in read_agent_sources().items():
        members[name] = Member(data=data, part="agent")
    main = (get_shipped_folder("targets/linux") / MAIN).read_bytes()
    return {**members, MAIN: Member(data=main, part="agent")}


def _collect_models(bundles: Mapping[str, Bundle], tick: Tick) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for number, (name, bundle) in enumerate(bundles.items()):
        tick("packing the models", number, len(bundles))
        folder = f"models/{name}"
        members[f"{folder}/{MANIFEST}"] = _take(bundle, MANIFEST, bundle.manifest_bytes)
        if bundle.signature is not None:
            data = encode_signature(bundle.signature)
            members[f"{folder}/{SIGNATURE}"] = _take(bundle, SIGNATURE, data)
        for file in bundle.manifest.files:
            path = f"{folder}/{file.name}"
            data = bytes(bundle.read(file.name))
            if file.name == bundle.manifest.model:
                sent = bundle.encode_for_transfer(file.name)
                if sent.encoding == "packed":
                    members[path + PACKED] = Member(
                        data=sent.data,
                        part="models",
                        source=f"{bundle.path}: {file.name}",
                        expanded_digest=file.digest,
                        expanded_bytes=file.bytes,
                    )
                    continue
            members[path] = _take(bundle, file.name, data)
    return members


def _take(bundle: Bundle, name: str, data: bytes) -> Member:
    return Member(data=data, part="models", source=f"{bundle.path}: {name}")


def _collect_app(request: PackageRequest) -> dict[str, Member]:
    members = {
        f"app/{name}": Member(
            data=data, part="app", source=str(request.folder / name) if request.folder else ""
        )
        for name, data in request.files.items()
    }
    for name, data in iter_files(get_shipped_folder("targets/pages")):
        members[f"pages/{name}"] = Member(data=data, part="app")
    config = encode_page_config(request.settings, request.bundles, backend=BACKEND_OF_SERVER)
    return {**members, "pages/config.json": Member(data=config, part="app")}


def _collect_licenses(
    wheels: Wheels,
) -> tuple[dict[str, Member], list[tuple[LockedWheel, WheelLicense]]]:
    members = {"licenses/edgekit/LICENSE": Member(data=read_own_license(), part="licenses")}
    licenses = [(wheel, read_license(path, wheel)) for path, wheel in wheels.files]
    for _, found in licenses:
        for name, data in found.texts.items():
            members[f"licenses/{name}"] = Member(data=data, part="licenses")
    return members, licenses


def _encode_sbom(
    request: PackageRequest,
    licenses: Sequence[tuple[LockedWheel, WheelLicense]],
    contents: Mapping[str, WheelContents],
) -> bytes:
    return encode_sbom(
        name=request.settings.name,
        version=request.settings.version,
        wheels=[(wheel, found, contents[wheel.name].left_out) for wheel, found in licenses],
        models={name: bundle.manifest for name, bundle in request.bundles.items()},
        app_files=request.files,
    )


def _describe_package(
    request: PackageRequest,
    members: Mapping[str, Member],
    platform: TargetPlatform,
    glibc: str | None,
    wheels: Wheels,
) -> Package:
    settings, python = request.settings, platform.python
    return Package(
        name=settings.name,
        version=settings.version,
        title=settings.title or settings.name,
        arch=python.arch,
        python=python.minor,
        glibc=python.glibc if glibc is not None else find_oldest_glibc(wheels.entries, python),
        input=settings.input,
        files=describe_members(members),
        models=tuple(
            PackagedModel(
                name=name,
                folder=f"models/{name}",
                runtime=bundle.manifest.runtime.name,
                threads=bundle.manifest.runtime.threads,
            )
            for name, bundle in request.bundles.items()
        ),
        wheels=tuple(f"wheels/{wheel.file}" for wheel in wheels.entries),
        entry=settings.entry or "",
        background=settings.background or "",
        memory_mib=_choose_memory(request),
    )


def _choose_memory(request: PackageRequest) -> int:
    """Return the memory that an app may use: as it asks, or the budgets of its models."""
    if request.settings.permissions.memory_mib is not None:
        return request.settings.permissions.memory_mib
    budgets = [b.manifest.profile.budget.peak_rss_mib for b in request.bundles.values()]
    return 0 if None in budgets else round(sum(each or 0 for each in budgets))


def find_oldest_glibc(wheels: Sequence[LockedWheel], python: DevicePython) -> tuple[int, int]:
    """Return the oldest version of glibc on which all wheels run."""
    own_tags = [parse_wheel_filename(wheel.file)[3] for wheel in wheels]
    major, newest = python.glibc
    for minor in range(_OLDEST_GLIBC_MINOR, newest):
        older = DevicePython(
            version=python.version, arch=python.arch, glibc=(major, minor), kernel=""
        ).tags()
        if all(tags & older for tags in own_tags):
            return major, minor
    return python.glibc
