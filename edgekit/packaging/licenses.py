"""Licenses of the wheels in a package: their names, and the texts that the wheels hold."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path

from edgekit.bounded_reading import read_member
from edgekit.errors import UserError
from edgekit.packaging.lock_file import LockedWheel

# Files of a wheel that state a license, by the ends of their paths in lower case.
_TEXTS = (
    "*.dist-info/licenses/*",
    "*.dist-info/license*",
    "*.dist-info/copying*",
    "*.dist-info/notice*",
    "*/license",
    "*/license.txt",
    "*/license.md",
    "*/copying",
    "*/notice",
    "*/notice.txt",
    "*/thirdpartynotices.txt",
)
_MOST_BYTES = 4 << 20
_CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True, kw_only=True)
class WheelLicense:
    """License of a wheel.

    Attributes:
        name: Its name, or an SPDX expression; empty if the metadata state none.
        is_expression: Whether the name is an SPDX expression.
        texts: Texts by the path in the wheel; none if the wheel holds none.
    """

    name: str
    is_expression: bool
    texts: dict[str, bytes]


def read_license(path: Path, wheel: LockedWheel) -> WheelLicense:
    """Read the license of a wheel.

    Raises:
        UserError: The wheel is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = next(n for n in names if n.endswith(".dist-info/METADATA"))
            head = Parser().parsestr(read_member(archive, inner, _MOST_BYTES).decode())
            texts = {
                name: read_member(archive, name, _MOST_BYTES)
                for name in names
                if not name.endswith("/")
                and any(fnmatchcase(name.lower(), pattern) for pattern in _TEXTS)
            }
    except (OSError, ValueError, KeyError, StopIteration, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a wheel: {error}", hint="fetch it again") from error
    expression = head.get("License-Expression", "")
    return WheelLicense(
        name=expression or _find_name(head),
        is_expression=bool(expression),
        texts={f"{wheel.name}-{wheel.version}/{_shorten(n)}": data for n, data in texts.items()},
    )


def _find_name(head: Message) -> str:
    """Return the name of a license in metadata before SPDX expressions."""
    stated = str(head.get("License", "")).strip()
    if stated and "\n" not in stated and len(stated) <= 100:
        return stated
    listed = [str(c) for c in head.get_all("Classifier", [])]
    found = [c.removeprefix(_CLASSIFIER) for c in listed if c.startswith(_CLASSIFIER)]
    return " and ".join(found)


def _shorten(name: str) -> str:
    """Return the path of a text without the folder of the metadata and hidden names."""
    _, found, inner = name.partition(".dist-info/")
    path = inner.removeprefix("licenses/") if found else name
    return "/".join(part.lstrip(".") or "_" for part in path.split("/"))


def read_own_license() -> bytes:
    """Return the text of edgekit's own license, which covers the agent and the pages."""
    beside = Path(__file__).parents[2] / "LICENSE"
    if beside.is_file():
        return beside.read_bytes()
    for file in metadata.files("edgekit") or ():
        if file.name == "LICENSE":
            return Path(str(file.locate())).read_bytes()
    return b"Apache-2.0\n"
