"""The statement ``package.json`` of a package file: its fields, their limits, and its JSON form.

A package is a zip file behind a shell header. ``package.json`` states the path, the size and the
sha256 of every other member, except ``signature.json``, which signs it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Dict, Iterable, Optional, Set, Tuple

from edgekit_agent import strictjson
from edgekit_agent.codec import decode, encode
from edgekit_agent.releases.homes import APP_NAME, APP_STATEMENT
from edgekit_agent.releases.records import DIGEST, MOST_THREADS
from edgekit_agent.runtimes import TABLE

SCHEMA_VERSION = 1
PACKAGE, SIGNATURE, MAIN = APP_STATEMENT, "signature.json", "__main__.py"
# A model that is stored packed is installed under its name without this suffix.
PACKED = ".packed"

VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~-]{0,63}")
ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}:[A-Za-z_][A-Za-z0-9_.]{0,199}")
ARCHITECTURES = ("x86_64", "aarch64", "armv7l", "riscv64")
INPUTS = ("image", "audio", "form", "text", "folder")

# First parts of paths in a package: single files, and folders.
TOP_FILES = (MAIN, "sbom.cdx.json", "edgekit.lock")
TOP_FOLDERS = ("edgekit_agent", "app", "pages", "models", "wheels", "licenses")
# Members that only the installer needs: they are not part of the installed release.
_ONLY_FOR_INSTALL = (MAIN, "wheels/")

MOST_PACKAGE_BYTES = 4 << 20
MOST_FILES, MOST_MODELS, MOST_WHEELS = 10_000, 16, 100
MOST_FILE_BYTES, MOST_BYTES = 4 << 30, 16 << 30
MOST_MEMORY_MIB = 1 << 20
_MOST_PATH, _MOST_PART, _MOST_TITLE = 1000, 200, 200


@dataclass(frozen=True)
class PackageFile:
    """A member of the zip file.

    A packed member (``*.packed``) also states the digest and the size of the file that it expands
    to, which is installed under the name without ``.packed``.
    """

    path: str
    digest: str
    bytes: int
    expanded_digest: str = ""
    expanded_bytes: int = 0

    @property
    def is_packed(self) -> bool:
        """True for a member that is expanded at the installation."""
        return self.path.endswith(PACKED)

    @property
    def installed_path(self) -> str:
        """Path of the installed file below the folder of the release."""
        return self.path[: -len(PACKED)] if self.is_packed else self.path

    @property
    def installed_digest(self) -> str:
        """Digest of the installed file, the sha256 in hex."""
        return self.expanded_digest if self.is_packed else self.digest

    @property
    def installed_bytes(self) -> int:
        """Size of the installed file."""
        return self.expanded_bytes if self.is_packed else self.bytes

    @property
    def is_installed(self) -> bool:
        """True for a file of the installed release."""
        return not self.path.startswith(_ONLY_FOR_INSTALL)


@dataclass(frozen=True)
class PackagedModel:
    """A model: its name, its folder below ``models/``, and how to run it."""

    name: str
    folder: str  # "models/NAME"
    runtime: str  # "onnxruntime" | "litert"
    threads: int = 1


@dataclass(frozen=True)
class Package:
    """The statement of a package.

    Attributes:
        name: name of the app: lower case letters, digits and hyphens.
        version: of the app, as its author counts.
        title: text for the page.
        arch: architecture of the programs of the device, as ``uname -m`` names it.
        python: version of Python that the wheels are for, such as (3, 11).
        glibc: least version of glibc, such as (2, 28).
        input: what the app takes: image, audio, form, text or folder.
        files: every member of the zip file, sorted by path, except this statement and its
            signature.
        models: the models; without an ``entry``, the first one answers.
        wheels: paths of the wheels, in the order of unpacking.
        entry: ``module:function`` in the folder ``app`` that answers, called with the sessions by
            the names of their models and with the sample; empty if there is none.
        background: ``module:function`` in the folder ``app`` that is called in a process of its
            own while the server runs, with a function that answers (bytes, media type) as ``POST
            /predict`` does, and with the ``threading.Event`` that is set when the server ends;
            empty if there is none.
        memory_mib: most memory that the app may use; 0 = no limit.
    """

    name: str
    version: str
    title: str
    arch: str
    python: Tuple[int, ...]
    glibc: Tuple[int, ...]
    input: str
    files: Tuple[PackageFile, ...]
    models: Tuple[PackagedModel, ...]
    wheels: Tuple[str, ...]
    entry: str = ""
    background: str = ""
    memory_mib: int = 0
    schema_version: int = SCHEMA_VERSION

    def find_file(self, path: str) -> Optional[PackageFile]:
        """Return the member with a path, if there is one."""
        return next((file for file in self.files if file.path == path), None)

    def list_installed(self) -> Tuple[PackageFile, ...]:
        """Return the members that the installed release consists of."""
        return tuple(file for file in self.files if file.is_installed)


def encode_package(package: Package) -> bytes:
    """Return the bytes of ``package.json``, the same for the same package.

    Raises:
        ValueError: a field is out of its limits.
    """
    check_package(package)
    return json.dumps(encode(package), indent=1, sort_keys=True).encode() + b"\n"


def decode_package(data: bytes) -> Package:
    """Read ``package.json``.

    Raises:
        ValueError: it is no valid statement; the text says which field is wrong.
    """
    if len(data) > MOST_PACKAGE_BYTES:
        raise ValueError(f"larger than {MOST_PACKAGE_BYTES} bytes")
    values = strictjson.loads(data)
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {str(found)[:20]}, must be {SCHEMA_VERSION}")
    package = decode(Package, values)
    check_package(package)
    return package


def get_release_name(data: bytes) -> str:
    """Return the name of the release that ``package.json`` with these bytes describes."""
    return hashlib.sha256(data).hexdigest()[:16]


def get_runtime_name(package: Package) -> str:
    """Return the name of the folder of the unpacked wheels, which depends on their digests."""
    digests = {file.path: file.digest for file in package.files}
    text = "".join(f"{path} {digests[path]}\n" for path in package.wheels)
    return f"{package.models[0].runtime}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def check_package(package: Package) -> None:
    """Check that every field is within its limits and that the fields agree.

    Raises:
        ValueError: they do not; the text says which field is wrong.
    """
    _check_facts(package)
    _check_files(package.files)
    paths = {file.path for file in package.files}
    if MAIN not in paths or not any(path.startswith("edgekit_agent/") for path in paths):
        raise ValueError(f"files: {MAIN} or edgekit_agent is missing")
    _check_models(package.models, {file.installed_path for file in package.files})
    _check_count("wheels", len(package.wheels), 0, MOST_WHEELS)
    packed_wheels = {path for path in paths if path.startswith("wheels/")}
    if set(package.wheels) != packed_wheels or len(package.wheels) != len(packed_wheels):
        raise ValueError("wheels: not the members of the folder wheels, each once")
    for path in package.wheels:
        if path.count("/") != 1 or not path.endswith(".whl"):
            raise ValueError(f"wheels: {path[:80]!r} is not a wheel")


def _check_facts(package: Package) -> None:
    if package.schema_version != SCHEMA_VERSION:
        raise ValueError(f"schema_version: must be {SCHEMA_VERSION}")
    _check_text("name", package.name, APP_NAME)
    _check_text("version", package.version, VERSION)
    if not 0 < len(package.title) <= _MOST_TITLE or not package.title.isprintable():
        raise ValueError("title: empty, too long, or with characters that cannot be printed")
    _check_choice("arch", package.arch, ARCHITECTURES)
    _check_choice("input", package.input, INPUTS)
    for name, numbers in (("python", package.python), ("glibc", package.glibc)):
        if len(numbers) != 2 or not all(0 <= number < 1000 for number in numbers):
            raise ValueError(f"{name}: expected two numbers, such as [3, 11]")
    for name, function in (("entry", package.entry), ("background", package.background)):
        if function:
            _check_text(name, function, ENTRY)
    _check_count("memory_mib", package.memory_mib, 0, MOST_MEMORY_MIB)


def _check_files(files: Tuple[PackageFile, ...]) -> None:
    _check_count("files", len(files), 1, MOST_FILES)
    for file in files:
        check_path(file.path)
        _check_size(file.path, file.digest, file.bytes)
        if file.is_packed:
            _check_size(file.path, file.expanded_digest, file.expanded_bytes)
        elif file.expanded_digest or file.expanded_bytes:
            raise ValueError(f"{file.path}: not packed, but has an expanded size or digest")
    if sum(file.bytes + file.expanded_bytes for file in files) > MOST_BYTES:
        raise ValueError(f"files: more than {MOST_BYTES >> 30} GiB in all")
    _check_distinct(file.path for file in files)
    _check_distinct(file.installed_path for file in files)


def check_path(path: str) -> None:
    """Check that a path lies inside the package, in a folder that packages have.

    Raises:
        ValueError: it does not.
    """
    parts = path.split("/")
    is_known = parts[0] in (TOP_FOLDERS if len(parts) > 1 else TOP_FILES)
    if len(path.encode(errors="replace")) > _MOST_PATH or not path.isprintable() or "\\" in path:
        raise ValueError(f"{path[:80]!r}: too long, or with characters that no path may have")
    # A leading dot would allow "..", and names that the installer uses for its own files.
    if not is_known or any(not part or part.startswith(".") for part in parts):
        raise ValueError(f"{path[:80]!r}: not a path of a package")
    if any(len(part.encode()) > _MOST_PART for part in parts):
        raise ValueError(f"{path[:80]!r}: a name is longer than {_MOST_PART} bytes")


def _check_size(path: str, digest: str, size: int) -> None:
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"{path}: its digest is not a sha256 in hex")
    _check_count(f"{path}: bytes", size, 0, MOST_FILE_BYTES)


def _check_distinct(paths: Iterable[str]) -> None:
    """Refuse paths that are equal on a file system without case, or where one is a folder."""
    files: Set[str] = set()
    folders: Dict[str, str] = {}
    for path in paths:
        key = path.casefold()
        if key in files:
            raise ValueError(f"{path}: occurs twice")
        files.add(key)
        parts = key.split("/")
        folders.update({"/".join(parts[:end]): path for end in range(1, len(parts))})
    clash = sorted(files & set(folders))
    if clash:
        raise ValueError(f"{folders[clash[0]]}: lies below another file")


def _check_models(models: Tuple[PackagedModel, ...], paths: Set[str]) -> None:
    _check_count("models", len(models), 1, MOST_MODELS)
    if len({model.name for model in models}) != len(models):
        raise ValueError("models: two have the same name")
    for model in models:
        _check_text("models: name", model.name, APP_NAME)
        if model.folder != f"models/{model.name}":
            raise ValueError(f"models: the folder of {model.name} must be models/{model.name}")
        _check_choice("models: runtime", model.runtime, tuple(TABLE))
        _check_count("models: threads", model.threads, 1, MOST_THREADS)
        if f"{model.folder}/manifest.json" not in paths:
            raise ValueError(f"files: {model.folder}/manifest.json is missing")


def _check_text(what: str, text: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"{what}: {text[:80]!r} is not valid")


def _check_choice(what: str, value: str, choices: Tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what}: {value[:40]!r} is unknown; known: {', '.join(choices)}")


def _check_count(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{what}: {value} is not between {least} and {most}")
