"""Choice and cache of runtime wheels for a device."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from edgekit.cache.integrity import mark_used, read_entry, seal_entry
from edgekit.config.profile import RuntimeName, RuntimeSpec
from edgekit.errors import DeviceError
from edgekit.remote.python_tags import DevicePython
from edgekit.remote.session import Progress
from edgekit.remote.wheel_download import WheelRequest, download_closure
from edgekit.remote.wheel_resolver import read_wheel
from edgekit_agent.files import sha256_of, write_atomic
from edgekit_agent.worker_results import StageProgress

LITERT, TFLITE = "ai-edge-litert", "tflite-runtime"
# The last release of tflite-runtime; it has wheels for devices without ai-edge-litert wheels.
TFLITE_VERSION = "2.14.0"
TFLITE_NEIGHBORS = ("2.13.0", "2.15.0")
TFLITE_NEWEST_PYTHON = (3, 11)
TFLITE_ARCHES = ("x86_64", "aarch64", "armv7l")
LITERT_OLDEST_PYTHON = (3, 10)
# Architectures with wheels of numpy, onnxruntime and ai-edge-litert.
NUMPY_ARCHES = ("x86_64", "aarch64")


@dataclass(frozen=True, kw_only=True)
class RuntimeWheels:
    """Wheel files of a runtime and its requirements on the host, with their sha256."""

    runtime: str
    version: str
    files: tuple[tuple[Path, str], ...]
    provided: frozenset[str]

    @property
    def name(self) -> str:
        """Return the name of the folder on the device, which depends on the wheels' digests."""
        digests = "".join(sorted(digest for _, digest in self.files))
        return f"{self.runtime}-{self.version}-{hashlib.sha256(digests.encode()).hexdigest()[:12]}"


def fetch_runtime(
    runtime: RuntimeName,
    spec: RuntimeSpec,
    python: DevicePython,
    *,
    tested_version: str,
    cache: Path,
    progress: Progress | None = None,
) -> RuntimeWheels:
    """Return the wheels of a runtime from the cache, or download them with pip.

    Args:
        runtime: the name of the runtime.
        spec: the versions that the profile allows.
        python: the device's Python.
        tested_version: the version the model was measured with; preferred if it has a wheel.
        cache: the folder of wheels and lock files.
        progress: called with the package that is downloaded.

    Raises:
        DeviceError: there are no such wheels, or they cannot be downloaded.
        PipMissing: wheels must be downloaded, and there is no pip.
    """
    failure: DeviceError | None = None
    for wanted in list_candidates(runtime, spec, python, tested_version):
        try:
            files = fetch_wheels(wanted, python, cache=cache, progress=progress)
        except DeviceError as error:
            failure = error
            continue
        root = read_wheel(files[0][0], python)
        return RuntimeWheels(
            runtime=runtime, version=str(root.version), files=files, provided=wanted.provided
        )
    raise failure or DeviceError(f"no {runtime} for Python {python.version} on {python.arch}")


def fetch_wheels(
    wanted: WheelRequest, python: DevicePython, *, cache: Path, progress: Progress | None = None
) -> tuple[tuple[Path, str], ...]:
    """Return wheels and their sha256 from the cache, or download them with pip.

    Args:
        wanted: the requirements; the wheel of the first one comes first.
        python: the device's Python.
        cache: the folder of wheels and lock files.
        progress: called with the package that is downloaded.

    Raises:
        DeviceError: there are no such wheels, or they cannot be downloaded.
        PipMissing: wheels must be downloaded, and there is no pip.
    """
    cache.mkdir(parents=True, exist_ok=True)
    lock = cache / _lock_name(wanted, python)
    found = _find_locked_files(lock, cache)
    return found or _fetch_files(wanted, python, cache, lock, progress)


def list_candidates(
    runtime: RuntimeName, spec: RuntimeSpec, python: DevicePython, tested_version: str
) -> tuple[WheelRequest, ...]:
    """Return the possible sets of requirements of a runtime, the preferred one first.

    Raises:
        DeviceError: no wheel exists for the device, or the profile allows none of them.
    """
    if runtime == "litert":
        return _litert_candidates(spec, python, tested_version)
    if python.arch not in NUMPY_ARCHES:
        raise DeviceError(
            f"onnxruntime has no wheels for {python.arch}",
            hint="install it on the device yourself, or build with --runtime litert",
        )
    return _request_with_numpy("onnxruntime", spec, tested_version)


def choose_litert_packages(specifier: str) -> tuple[str, ...]:
    """Return the packages that a profile's version specifier of ``litert`` means, preferred first.

    Two packages with separate version numbers provide ``litert``: ai-edge-litert, and
    tflite-runtime, whose last release is 2.14.0. A specifier that allows 2.14 and neither 2.13 nor
    2.15, such as ``==2.14.*``, means tflite-runtime; an empty one means either; any other one means
    ai-edge-litert, so that ``>=2.0`` never selects the old runtime.
    """
    allowed = SpecifierSet(specifier)
    if not len(allowed):
        return LITERT, TFLITE
    beside = any(allowed.contains(version) for version in TFLITE_NEIGHBORS)
    return (TFLITE,) if allowed.contains(TFLITE_VERSION) and not beside else (LITERT,)


def _litert_candidates(
    spec: RuntimeSpec, python: DevicePython, tested_version: str
) -> tuple[WheelRequest, ...]:
    packages = choose_litert_packages(spec.version)
    new = python.arch in NUMPY_ARCHES and python.minor >= LITERT_OLDEST_PYTHON
    old = python.arch in TFLITE_ARCHES and python.minor <= TFLITE_NEWEST_PYTHON
    if new and LITERT in packages:
        return _request_with_numpy(LITERT, spec, tested_version)
    if old and TFLITE in packages:
        return (_request_tflite(python),)
    hint = (
        f"set litert's version to '==2.14.*' in the profile to use {TFLITE} {TFLITE_VERSION}, "
        "which has a wheel"
        if old and TFLITE not in packages
        else f"{LITERT} needs Python 3.10 and 64-bit userland, {TFLITE} Python 3.9 to 3.11"
    )
    raise DeviceError(
        f"no wheel of {' or '.join(packages)} for Python {python.version} on {python.arch}",
        hint=hint,
    )


def _request_with_numpy(
    package: str, spec: RuntimeSpec, tested_version: str
) -> tuple[WheelRequest, ...]:
    versions = [spec.version]
    try:
        tested = Version(tested_version)
    except InvalidVersion:  # missing, or not the version of a package
        tested = None
    if tested is not None and SpecifierSet(spec.version).contains(tested, prereleases=True):
        versions.insert(0, f"=={tested}")
    return tuple(WheelRequest(requirements=(f"{package}{v}", "numpy")) for v in versions)


def _request_tflite(python: DevicePython) -> WheelRequest:
    # Version 2.14 crashes with numpy 2; numpy has no wheels for 32 bits.
    root = f"{TFLITE}=={TFLITE_VERSION}"
    if python.arch in NUMPY_ARCHES:
        return WheelRequest(requirements=(root, "numpy<2"))
    return WheelRequest(requirements=(root,), provided=frozenset({"numpy"}))


def _lock_name(wanted: WheelRequest, python: DevicePython) -> str:
    asked = [wanted.requirements, python.platforms(), python.interpreter]
    if wanted.leaves:
        asked.append(sorted(wanted.leaves))
    short = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    root = "".join(c if c.isalnum() or c in "-." else "_" for c in wanted.requirements[0])
    return f"{root}-{python.interpreter}-{python.arch}-{short}.lock.json"


def _find_locked_files(lock: Path, cache: Path) -> tuple[tuple[Path, str], ...] | None:
    """Return the files of a lock, or None if one is missing; remove damaged ones."""
    files = tuple((cache / name, digest) for name, digest in _read_lock(lock))
    for path, digest in files:
        if path.exists() and sha256_of(str(path)) != digest:
            path.unlink()
    if not files or not all(path.exists() for path, _ in files):
        return None
    for path in (lock, *(path for path, _ in files)):
        mark_used(path)
    return files


def _read_lock(lock: Path) -> list[tuple[str, str]]:
    """Return the files of a lock and their sha256; none if this user's seal does not match."""
    try:
        data = read_entry(_label(lock), lock.read_bytes())
    except FileNotFoundError:
        return []
    return [] if data is None else [(e["file"], e["sha256"]) for e in json.loads(data)["wheels"]]


def _label(lock: Path) -> str:
    return f"wheels/{lock.name}"


def _read_pins(lock: Path) -> list[str]:
    """Return requirements that pin the versions in a lock, to download a lost file again."""
    parsed = [parse_wheel_filename(name) for name, _ in _read_lock(lock)]
    return [f"{name}=={version}" for name, version, _, _ in parsed]


def _fetch_files(
    wanted: WheelRequest, python: DevicePython, cache: Path, lock: Path, progress: Progress | None
) -> tuple[tuple[Path, str], ...]:
    if progress is not None:
        progress(StageProgress(f"fetch {wanted.requirements[0]}"))
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as scratch:
        known = Path(scratch) / "known"
        _link_known(cache, known)
        pins = _read_pins(lock)
        chosen = download_closure(wanted, python, Path(scratch), known=known, pins=pins)
        files = tuple((cache / path.name, sha256_of(str(path))) for path in chosen)
        for path in chosen:
            path.replace(cache / path.name)
    entries = [{"file": path.name, "sha256": digest} for path, digest in files]
    data = json.dumps({"wheels": entries}, indent=1).encode()
    write_atomic(str(lock), seal_entry(_label(lock), data))
    return files


def _link_known(cache: Path, folder: Path) -> None:
    """Fill a folder for pip with links to the cached wheels whose digest matches a lock."""
    folder.mkdir()
    for lock in sorted(cache.glob("*.lock.json")):
        for name, digest in _read_lock(lock):
            path, link = cache / name, folder / name
            if not link.is_symlink() and path.is_file() and sha256_of(str(path)) == digest:
                link.symlink_to(path.absolute())
