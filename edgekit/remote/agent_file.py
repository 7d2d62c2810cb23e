"""The agent as one reproducible zip file, and the scripts that start it on a device."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGE = "edgekit_agent"
MAIN = "from edgekit_agent.__main__ import main\n\nraise SystemExit(main())\n"


@dataclass(frozen=True, kw_only=True)
class AgentFile:
    """Bytes of the packed agent and their sha256."""

    data: bytes
    digest: str


@functools.cache
def pack_agent() -> AgentFile:
    """Pack the installed agent as a zip that Python runs; the bytes are the same on every host."""
    members = {"__main__.py": MAIN.encode(), **read_agent_sources()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name], compresslevel=9)
    data = buffer.getvalue()
    return AgentFile(data=data, digest=hashlib.sha256(data).hexdigest())


def read_agent_sources() -> dict[str, bytes]:
    """Return the source of each module of the agent, by its path."""
    return dict(_iter_sources(resources.files(PACKAGE), PACKAGE))


def _iter_sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        inner = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _iter_sources(entry, inner)
        elif entry.name.endswith(".py"):
            yield inner, entry.read_bytes()


def read_script(name: str) -> str:
    """Return the source of a script in this folder that starts the agent on a device."""
    return resources.files("edgekit.remote").joinpath(name).read_text("utf-8")


def shorten_script(script: str) -> str:
    """Return a script without docstring, annotations and blank lines, indented by one space."""
    body = script.partition('"""\n\n')[2].replace('if __name__ == "__main__":\n    ', "")
    body = re.sub(r": str(?=[,)])| -> None(?=:)", "", body)
    return re.sub(r"\n+", "\n", body).replace("    ", " ")
