"""Debian packages: an ar archive of two tar archives, with the same bytes for the same contents."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from edgekit.packaging.target_platform import format_version
from edgekit_agent.apps.package_format import Package
from edgekit_agent.releases.homes import MARKER, MARKER_TEXT

_ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "riscv64": "riscv64"}
_MAGIC, _FORMAT = b"!<arch>\n", b"2.0\n"
_MAINTAINER = "edgekit <edgekit@localhost>"
# Packages of Debian that hold modules of Python which the device must have.
_DEBIAN_NAMES = {"pillow": "python3-pil", "numpy": "python3-numpy"}

_POSTINST = """\
#!/bin/sh
# Install the app: check it, test its models, and switch to it.
set -e
if [ "$1" = configure ]; then
  sh /opt/{name}/{name}.run --prefix /opt/{name} --no-start
fi
"""
_PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ]; then
  if [ -x /opt/{name}/bin/{name} ]; then
    /opt/{name}/bin/{name} uninstall || true
  fi
  rm -rf /opt/{name}/bin /opt/{name}/share
fi
"""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A member of a tar archive; a link has a target."""

    data: bytes = b""
    mode: int = 0o644
    target: str = ""


def write_deb(
    file: BinaryIO, package: Package, run_file: bytes, provided: tuple[str, ...] = ()
) -> None:
    """Write a Debian package that installs a package file below ``/opt``.

    Args:
        file: An open file.
        package: The statement of the package.
        run_file: The package file.
        provided: Names of the modules that the device must have.
    """
    name = package.name
    contents = {
        f"opt/{name}/{name}.run": _Entry(data=run_file, mode=0o755),
        # The permissions of this folder let every user start the app.
        f"opt/{name}/share/edgekit/{MARKER}": _Entry(data=MARKER_TEXT),
        f"usr/bin/{name}": _Entry(target=f"/opt/{name}/bin/{name}"),
    }
    sums = "".join(
        f"{hashlib.md5(entry.data, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, entry in sorted(contents.items())
        if not entry.target
    )
    scripts = {"postinst": _POSTINST, "prerm": _PRERM}
    control = {
        "control": _Entry(data=_make_control(package, len(run_file), provided).encode()),
        "md5sums": _Entry(data=sums.encode()),
        **{
            script: _Entry(data=text.format(name=name).encode(), mode=0o755)
            for script, text in scripts.items()
        },
    }
    file.write(_MAGIC)
    _write_member(file, "debian-binary", _FORMAT)
    _write_member(file, "control.tar.gz", _compress(_make_tar(control)))
    # The package file is compressed already.
    _write_member(file, "data.tar", _make_tar(contents))


def get_debian_name(name: str) -> str:
    """Return the name of the Debian package that holds a Python package."""
    return _DEBIAN_NAMES.get(name, f"python3-{name}")


def _make_control(package: Package, size: int, provided: tuple[str, ...]) -> str:
    major, minor = package.python
    depends = [
        f"python3 (>= {major}.{minor})",
        f"python3 (<< {major}.{minor + 1})",
        f"libc6 (>= {format_version(package.glibc)})",
        "libstdc++6",
        *map(get_debian_name, provided),
    ]
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": _ARCHES[package.arch],
        "Maintainer": _MAINTAINER,
        "Installed-Size": str(-(-size // 1024)),
        "Depends": ", ".join(depends),
        "Section": "science",
        "Priority": "optional",
        "Description": f"{package.title}\n An app with its models and their runtime. It uses no "
        "network.",
    }
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def _make_tar(entries: Mapping[str, _Entry]) -> bytes:
    """Return a tar archive with the folders of its members, all owned by root."""
    buffer = io.BytesIO()
    folders = {
        "/".join(parts[:end])
        for parts in (path.split("/") for path in entries)
        for end in range(1, len(parts))
    }
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in ("", *sorted({*entries, *folders})):
            info = tarfile.TarInfo(f"./{path}")
            info.uname = info.gname = "root"
            entry = entries.get(path)
            if entry is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif entry.target:
                info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
                archive.addfile(info)
            else:
                info.size, info.mode = len(entry.data), entry.mode
                archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def _write_member(file: BinaryIO, name: str, data: bytes) -> None:
    """Write a member of an ar archive: a header of 60 bytes, then the data, to an even length."""
    file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(data):<10}`\n".encode())
    file.write(data + b"\n" * (len(data) % 2))
