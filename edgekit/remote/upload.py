"""Upload of files by digest: only missing files, compressed, resuming an interrupted upload."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.packing import TransferData
from edgekit.errors import DeviceError
from edgekit.remote.session import Progress, Session
from edgekit_agent.files import sha256_of
from edgekit_agent.jobs import PlanJob, ReceiveJob
from edgekit_agent.results import Plan, ReceiveResult
from edgekit_agent.worker_jobs import Blob
from edgekit_agent.worker_results import StageProgress

CHUNK = 1 << 20
# Bytes of all commands of an update, rounded up, if the device has the agent and the runtime.
COMMANDS_BYTES = 4608
# A smaller saving is not worth the device's time to expand it.
WORTH = 0.03
LEVEL = 6
SAMPLE, SAMPLES = 1 << 15, 32
ZIP_MAGIC = b"PK\x03\x04"
PRESENT = -1
# The agent's failure if numpy or another module is missing that it needs to expand a file.
CANNOT_EXPAND = "missing_runtime"


@dataclass(frozen=True, kw_only=True)
class PackedFiles:
    """Packed encodings of files, found by digest.

    Attributes:
        find: returns the encoding to send of the file with a sha256; None = there is none.
        site: the folder of numpy on the device; None = the device's own Python has it.
    """

    find: Callable[[str], TransferData | None]
    site: str | None


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A blob and the encoded bytes that are sent for it."""

    blob: Blob
    source: Path | bytes


def send(
    session: Session,
    files: Sequence[tuple[Path | bytes, str]],
    progress: Progress | None = None,
    packed: PackedFiles | None = None,
    *,
    app: str = "",
) -> dict[str, str]:
    """Send the files that the device lacks.

    Args:
        session: the device.
        files: the contents or the path of each file, with its sha256.
        progress: called with the progress.
        packed: packed encodings of files; they are deflated instead for a device that cannot expand
            them.
        app: the name that the files are for; empty = the main home.

    Returns:
        The path on the device of every file, by sha256, if they are for the main home.

    Raises:
        DeviceError: a file did not arrive complete.
    """
    sources = {digest: source for source, digest in files}
    plain = [
        Upload(blob=_make_raw_blob(source, digest), source=source)
        for digest, source in sources.items()
    ]
    held = _plan(session, plain, app)
    missing = [p for p, present in zip(plain, held, strict=True) if present != PRESENT]
    if missing:
        # Only missing files are compressed, because packing takes long.
        with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            wrapped = [_pack(p, Path(scratch), packed) for p in missing]
            try:
                _send_missing(session, wrapped, progress, packed, app=app)
            except DeviceError as error:
                if packed is None or error.kind != CANNOT_EXPAND:
                    raise
                if progress is not None:
                    progress(StageProgress(f"{error.message}; sent with deflate instead"))
                deflated = [_deflate(p, Path(scratch)) for p in missing]
                _send_missing(session, deflated, progress, app=app)
    return {digest: f"{session.home}/objects/{digest}" for digest in sources}


def _plan(session: Session, parcels: Sequence[Upload], app: str) -> tuple[int, ...]:
    job = PlanJob(home=session.home, blobs=tuple(p.blob for p in parcels), app=app)
    return session.ask(job, Plan).present


def _send_missing(
    session: Session,
    parcels: Sequence[Upload],
    progress: Progress | None,
    packed: PackedFiles | None = None,
    *,
    app: str,
) -> None:
    held = _plan(session, parcels, app)
    going = [(p, at) for p, at in zip(parcels, held, strict=True) if at != PRESENT]
    job = ReceiveJob(
        home=session.home,
        blobs=tuple(p.blob for p, _ in going),
        offsets=tuple(at for _, at in going),
        site=packed.site if packed else None,
        app=app,
    )
    payload = (piece for parcel, at in going for piece in _iter_chunks(parcel.source, at))
    session.ask(job, ReceiveResult, payload=payload, progress=progress)


def _make_raw_blob(source: Path | bytes, digest: str) -> Blob:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return Blob(digest=digest, size=size, wire_digest=digest, wire_size=size, encoding="raw")


def _pack(parcel: Upload, scratch: Path, packed: PackedFiles | None) -> Upload:
    """Return the upload with its packed encoding if there is one, else deflated."""
    raw = parcel.blob
    form = packed.find(raw.digest) if packed else None
    if form is None or form.encoding != "packed":
        return _deflate(parcel, scratch)
    blob = Blob(raw.digest, raw.size, sha256(form.data), len(form.data), form.encoding)
    return Upload(blob=blob, source=form.data)


def count_wire_bytes(data: bytes) -> int:
    """Return the number of bytes that are sent for a small file without a packed encoding."""
    deflated = len(zlib.compress(data, LEVEL))
    return deflated if deflated <= len(data) * (1 - WORTH) else len(data)


def _deflate(parcel: Upload, scratch: Path) -> Upload:
    """Deflate an upload if that saves at least 3 %; a zip (a wheel) is deflated already."""
    raw = parcel.blob
    if not _is_compressible(parcel):
        return parcel
    path = scratch / raw.digest
    packer = zlib.compressobj(LEVEL)
    with path.open("wb") as file:
        for piece in _iter_chunks(parcel.source, 0):
            file.write(packer.compress(piece))
        file.write(packer.flush())
    size = path.stat().st_size
    if size > raw.size * (1 - WORTH):
        path.unlink()
        return parcel
    wire = sha256_of(str(path))
    blob = Blob(raw.digest, raw.size, wire_digest=wire, wire_size=size, encoding="zlib")
    return Upload(blob=blob, source=path)


def _is_compressible(parcel: Upload) -> bool:
    """Return whether samples of the file deflate well; the whole takes seconds per 100 MB."""
    step = max(SAMPLE, parcel.blob.size // SAMPLES)
    samples = [_read_sample(parcel.source, at) for at in range(0, parcel.blob.size, step)]
    if not samples or samples[0].startswith(ZIP_MAGIC):
        return False
    packed = sum(len(zlib.compress(s, LEVEL)) for s in samples)
    return packed < (1 - WORTH) * sum(map(len, samples))


def _read_sample(source: Path | bytes, start: int) -> bytes:
    if isinstance(source, bytes):
        return source[start : start + SAMPLE]
    with source.open("rb") as file:
        file.seek(start)
        return file.read(SAMPLE)


def _iter_chunks(source: Path | bytes, start: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for at in range(start, len(source), CHUNK):
            yield source[at : at + CHUNK]
        return
    with source.open("rb") as file:
        file.seek(start)
        while piece := file.read(CHUNK):
            yield piece


def sha256(data: bytes) -> str:
    """Return the sha256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()
