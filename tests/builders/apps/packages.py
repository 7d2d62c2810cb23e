"""Package files as a test wants them: a tiny model, real wheels, and whatever it changes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import platform
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekit.bundle.packing import pack
from edgekit_agent.apps.package_format import (
    Package,
    PackagedModel,
    PackageFile,
    encode_package,
)

ROOT = Path(__file__).parents[3]
HEADER = ROOT / "targets" / "linux" / "header.sh"
CODE = (ROOT / "targets" / "linux" / "__main__.py", ROOT / "targets" / "edgekit_agent")
# Distributions that a session needs to run ONNX models.
RUNTIME = ("numpy", "onnxruntime")
# Parts of installed distributions that are no part of their wheels, or that no session imports.
_UNUSED = {"..", "__pycache__", "tests", "transformers", "quantization", "f2py", "tools"}
DATE = (1980, 1, 1, 0, 0, 0)

Members = dict[str, bytes]


@functools.cache
def pack_wheel(distribution: str) -> bytes:
    """Make a wheel of the files of an installed distribution."""
    found = importlib.metadata.distribution(distribution)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in found.files or ():
            path = Path(found.locate_file(file))
            if not _UNUSED & set(file.parts) and path.is_file():
                archive.write(path, file.as_posix())
    return buffer.getvalue()


def read_code() -> Members:
    """Return the agent and the entry point, as members of a package."""
    main, agent = CODE
    files = (path for path in agent.rglob("*") if path.is_file() and path.suffix != ".pyc")
    members = {path.relative_to(agent.parent).as_posix(): path.read_bytes() for path in files}
    return {"__main__.py": main.read_bytes(), **members}


def read_model(bundle: Path, name: str = "main", *, packed: bool = True) -> Members:
    """Return the files of a build folder, as members of a package."""
    members = {}
    for path in sorted(p for p in bundle.iterdir() if p.is_file()):
        is_model = path.suffix in (".onnx", ".tflite")
        ending, data = (".packed", pack(path.read_bytes())) if packed and is_model else ("", None)
        members[f"models/{name}/{path.name}{ending}"] = data or path.read_bytes()
    return members


@dataclasses.dataclass(frozen=True)
class Draft:
    """Members and facts of a package that can still be changed."""

    members: Members
    facts: Mapping[str, object]
    expanded: Members = dataclasses.field(default_factory=dict)

    def replace(self, members: Mapping[str, bytes] | None = None, **facts: object) -> Draft:
        """Return a draft with other members and facts."""
        return dataclasses.replace(
            self, members={**self.members, **(members or {})}, facts={**self.facts, **facts}
        )

    def state(self) -> bytes:
        """Return package.json."""
        files = tuple(self._describe(path) for path in sorted(self.members))
        return encode_package(Package(files=files, **self.facts))

    def _describe(self, path: str) -> PackageFile:
        data = self.members[path]
        whole = self.expanded.get(path)
        if whole is None:
            return PackageFile(path, digest(data), len(data))
        return PackageFile(path, digest(data), len(data), digest(whole), len(whole))

    def write(self, path: Path, *, change: Callable[[Members], None] | None = None) -> Path:
        """Write the package file.

        Args:
            path: the file.
            change: changes the members after their digests were taken.
        """
        members = {**self.members, "package.json": self.state()}
        if change is not None:
            change(members)
        return write_zip(path, members)


def draft_package(bundle: Path, **facts: object) -> Draft:
    """Draft a package of one model for this machine."""
    wheels = tuple(f"wheels/{name}.whl" for name in RUNTIME)
    members = {
        **read_code(),
        **read_model(bundle),
        **{f"wheels/{name}.whl": pack_wheel(name) for name in RUNTIME},
        "pages/index.html": b"<!doctype html><title>A page</title>",
        "pages/page.js": b"export const x = 1;\n",
        "pages/config.json": b'{"name": "leaf"}',
        "licenses/leaf.txt": b"do as you like\n",
    }
    expanded = {
        f"models/main/{path.name}.packed": path.read_bytes() for path in bundle.glob("*.onnx")
    }
    chosen = {
        "name": "leaf",
        "version": "1.0",
        "title": "Leaf check",
        "arch": platform.machine(),
        "python": sys.version_info[:2],
        "glibc": (2, 17),
        "input": "form",
        "models": (PackagedModel("main", "models/main", "onnxruntime"),),
        "wheels": wheels,
        **facts,
    }
    return Draft(members, chosen, expanded)


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a zip file behind the shell header; wheels are stored."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(members.items()):
            info = zipfile.ZipInfo(name, DATE)
            is_stored = name.startswith("wheels/") or name.endswith(".packed")
            info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    path.write_bytes(HEADER.read_bytes() + buffer.getvalue())
    return path


def digest(data: bytes) -> str:
    """Return the sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def read_json(text: str | bytes) -> dict[str, object]:
    """Return a JSON object."""
    values = json.loads(text)
    assert isinstance(values, dict)
    return values
