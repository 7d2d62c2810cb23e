"""Download and cache of onnxruntime-web through npm, pinned by version and integrity hash."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from edgekit.bounded_reading import read_regular
from edgekit.cache.integrity import mark_used
from edgekit.errors import UserError, reason
from edgekit.progress import Tick, ignore_progress
from edgekit_agent.files import write_atomic

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# The integrity field of this version in the npm registry: sha512 of the archive, in base64.
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosX"
    "HF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# Folder of the archive in the cache.
WEB_CACHE = "web-runtime"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
# The build for the processor alone: the smallest one, with SIMD, and with threads where allowed.
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_MOST_ARCHIVE_BYTES = 64 << 20
_MOST_MEMBER_BYTES = 32 << 20
_FETCH_S = 600.0


@dataclass(frozen=True, kw_only=True)
class WebRuntime:
    """The files of onnxruntime-web that a page loads, by name, and its license in SPDX form."""

    version: str
    integrity: str
    files: Mapping[str, bytes]
    license: str


def fetch_web_runtime(
    cache: Path, *, archive: Path | None = None, tick: Tick = ignore_progress
) -> WebRuntime:
    """Return the runtime from an archive, from the cache, or downloaded once by npm.

    Args:
        cache: Folder for the downloaded archive.
        archive: File that ``npm pack`` wrote elsewhere; npm and a network are not needed then.
        tick: Progress callback.

    Raises:
        UserError: The archive is another one, or cannot be downloaded.
    """
    if archive is not None:
        return _read_archive(archive)
    cached = cache / ARCHIVE
    if not _is_intact(cached):
        tick(f"fetching {PACKAGE} {VERSION}", 0, 0)
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(str(cached), _download())
    mark_used(cached)
    return _read_archive(cached)


def _is_intact(path: Path) -> bool:
    return path.is_file() and _compute_integrity(path.read_bytes()) == INTEGRITY


def _compute_integrity(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def _download() -> bytes:
    npm = shutil.which("npm")
    hint = (
        f"on a computer with a network run 'npm pack {PACKAGE}@{VERSION}', and give the file "
        "with --runtime-archive"
    )
    if npm is None:
        raise UserError(
            f"npm is needed to fetch {PACKAGE} {VERSION} once, and is not installed",
            hint=f"install it (Debian: apt install npm), or {hint}",
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [
            npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", folder,
            "--ignore-scripts", "--silent",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"npm did not fetch {PACKAGE} {VERSION}: {error}", hint=hint) from error
        path = Path(folder) / ARCHIVE
        if done.returncode or not path.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = said[-1] if said else f"status {done.returncode}"
            raise UserError(f"npm did not fetch {PACKAGE} {VERSION}: {why}", hint=hint)
        data = path.read_bytes()
    if _compute_integrity(data) != INTEGRITY:
        raise UserError(
            f"{ARCHIVE} from npm is not the pinned one: its sha512 differs",
            hint="the registry or the network changed it; nothing was kept",
        )
    return data


def _read_archive(path: Path) -> WebRuntime:
    try:
        data = read_regular(path, _MOST_ARCHIVE_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read: {reason(error)}",
            hint=f"give the file that 'npm pack {PACKAGE}@{VERSION}' writes",
        ) from error
    if _compute_integrity(data) != INTEGRITY:
        raise UserError(
            f"{path}: not {PACKAGE} {VERSION}: its sha512 differs",
            hint=f"give the file that 'npm pack {PACKAGE}@{VERSION}' writes",
        )
    with tarfile.open(fileobj=BytesIO(data), mode="r:gz") as archive:
        about = json.loads(_read_member(archive, "package.json"))
        files = {name: _read_member(archive, f"dist/{name}") for name in FILES}
    return WebRuntime(
        version=VERSION, integrity=INTEGRITY, files=files, license=str(about["license"])
    )


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(f"package/{name}")
    if member is None:
        raise UserError(f"{ARCHIVE}: {name} is missing")
    return member.read(_MOST_MEMBER_BYTES)
