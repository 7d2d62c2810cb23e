"""Output of edgekit app and package."""

from __future__ import annotations

import shlex

from edgekit.packaging.deb import get_debian_name
from edgekit.packaging.fetch import FetchReport
from edgekit.packaging.package import PackageReport
from edgekit.packaging.templates import NewApp
from edgekit.packaging.web.web_package import WebReport


def format_new_app(app: NewApp) -> str:
    """Format a new app folder as text."""
    folder = shlex.quote(str(app.folder))
    bundle = "" if app.bundle is not None else " BUNDLE"
    return (
        f"{app.folder.resolve()} written ({', '.join(app.files)})\n  next: edgekit package{bundle} "
        f"--app {folder} --target linux -o {app.name}.run"
    )


def format_package(made: PackageReport | WebReport) -> str:
    """Format the report on a package as text: sizes, and the user's files in it."""
    return _format_web(made) if isinstance(made, WebReport) else _format_linux(made)


def _format_web(made: WebReport) -> str:
    lines = [f"{made.path.resolve()}  {_format_bytes(made.bytes)}"]
    lines.append(f"  {made.name} {made.version} for browsers, onnxruntime-web {made.runtime}")
    lines.append(f"  first load {_format_bytes(made.gzip_bytes)} (gzip)")
    lines += [
        f"  {part:<9} {_format_bytes(raw)}, gzip {_format_bytes(zipped)}"
        for part, (raw, zipped) in sorted(made.parts.items(), key=lambda each: -each[1][0])
    ]
    lines.append("  your files in it:")
    lines += [
        f"    {file.path}  {_format_bytes(file.bytes)}  from {file.source}" for file in made.files
    ]
    lines += [f"  note: {note}" for note in made.notes]
    folder = shlex.quote(str(made.path))
    lines.append(
        "  next: unpack it, and serve the folder: edgekit app serve FOLDER"
        if made.path.suffix == ".zip"
        else f"  next: edgekit app serve {folder}"
    )
    return "\n".join(lines)


def _format_linux(made: PackageReport) -> str:
    lines = [f"{made.path.resolve()}  {_format_bytes(made.bytes)}"]
    lines.append(f"  {made.name} {made.version} for {made.platform}")
    lines += [f"  {part:<9} {_format_bytes(size)}" for part, size in _sort_parts(made.parts)]
    lines.append("  your files in it:")
    lines += [
        f"    {file.path}  {_format_bytes(file.bytes)}  from {file.source}" for file in made.files
    ]
    wheels = ", ".join(f"{wheel.name} {wheel.version}" for wheel in made.wheels)
    lines.append(f"  wheels: {wheels}")
    if made.without_license:
        lines.append(f"  no text of a license in: {', '.join(made.without_license)}")
    if made.provided:
        named = " ".join(map(get_debian_name, made.provided))
        lines.append(f"  the device must have: {', '.join(made.provided)} (apt install {named})")
    lines.append(f"  signed with the key {made.signed_by}" if made.signed_by else "  not signed")
    lines += [f"  note: {note}" for note in made.notes]
    file = shlex.quote(made.path.name)
    command = f"apt install ./{file}" if made.format == "deb" else f"sh {file}"
    lines.append(f"  next: copy it to the device, then there: {command}")
    return "\n".join(lines)


def format_fetch(found: FetchReport) -> str:
    """Format the report on collected wheels as text."""
    folder = shlex.quote(str(found.folder))
    lines = [f"{found.folder.resolve()}: {len(found.wheels)} wheels for {found.platform}"]
    lines += [f"  {wheel.file}" for wheel in found.wheels]
    lines += [f"  note: {note}" for note in found.notes]
    lines.append(f"  next: edgekit package BUNDLE --wheels {folder} -o FILE")
    return "\n".join(lines)


def _sort_parts(parts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(parts.items(), key=lambda each: -each[1])


def _format_bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
