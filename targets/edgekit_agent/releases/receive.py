"""Transfer of files from the host: plan, receive, resume after a break, forget."""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import BinaryIO, Callable, Iterator, List, Optional, Tuple

from edgekit_agent.failures import AgentError
from edgekit_agent.files import CHUNK, fsync_folder, open_atomic, sha256_of
from edgekit_agent.jobs import ForgetJob, PlanJob, ReceiveJob
from edgekit_agent.limits import get_expansion_limit
from edgekit_agent.releases.cleanup import find_needed_objects, remove_spares
from edgekit_agent.releases.homes import Home, check_digest, open_home
from edgekit_agent.releases.store import free_bytes, list_copies, lock_home, remove, sweep
from edgekit_agent.results import ForgetResult, Plan, ReceiveResult
from edgekit_agent.wire import Inlet, Progress
from edgekit_agent.worker_jobs import Blob, ExpandJob
from edgekit_agent.worker_results import ExpandResult

Expand = Callable[[ExpandJob], ExpandResult]

_TAKE_BYTES = 1 << 18
# Space for directory entries and the file system's metadata.
_SPARE_BYTES = 1 << 16


def plan(job: PlanJob) -> Plan:
    """Report how many bytes of each blob are here; an object is verified again and counts as -1.

    An object of another home of the device counts too: the installation links it.
    """
    home = open_home(job.home, job.app)
    return Plan(tuple(_count_present_bytes(home, blob) for blob in job.blobs), free_bytes(home))


def receive(job: ReceiveJob, inlet: Inlet, progress: Progress, expand: Expand) -> ReceiveResult:
    """Receive blobs from the raw bytes that follow the job; keep each once it is verified.

    Packed blobs are expanded last, in a worker process: that takes seconds, in which the host
    should not wait to send the rest. After a break, the bytes received so far stay; ``plan``
    reports how many.

    Raises:
        AgentError: ``no_space`` before anything is read, ``corrupt`` (transient) for a blob with
            another digest than declared; its bytes are dropped.
        PeerGone: the bytes ended early.
    """
    if len(job.blobs) != len(job.offsets):
        raise AgentError("bad_job", f"{len(job.blobs)} blobs but {len(job.offsets)} offsets")
    pairs = list(zip(job.blobs, job.offsets))
    if any(not 0 <= offset <= blob.wire_size for blob, offset in pairs):
        raise AgentError("bad_job", "an offset is outside its blob")
    if any(min(blob.size, blob.wire_size) < 0 for blob in job.blobs):
        raise AgentError("bad_job", "a size is below 0")
    total = sum(blob.wire_size - offset for blob, offset in pairs)
    inlet.expect(total)
    home, received_bytes = open_home(job.home, job.app), 0
    with lock_home(home):
        _check_space(home, pairs, job.site)
        for blob in job.blobs:
            _check_claim(blob)
        for blob, offset in pairs:
            for count in _receive_blob(home, blob, offset, inlet):
                received_bytes += count
                progress("receive", received_bytes, total)
            if blob.encoding != "packed":
                _keep(home, blob)
        packed = [blob for blob in job.blobs if blob.encoding == "packed"]
        for blob in packed:
            _expand(home, blob, expand, job.site)
    return ReceiveResult(len(job.blobs), total)


def forget(job: ForgetJob) -> ForgetResult:
    """Remove objects and their partial downloads; objects that a release needs stay.

    If the record of a release is damaged, its needs are unknown and every object stays.

    Raises:
        AgentError: ``bad_job``, ``busy``.
    """
    home, digests = open_home(job.home), {check_digest(digest) for digest in job.digests}
    if not os.path.isdir(home.path):
        return ForgetResult(())
    with lock_home(home):
        sweep(home)
        for entry in os.listdir(home.folder("parts")):
            if entry.partition(".")[0] in digests:
                remove(os.path.join(home.folder("parts"), entry))
        needed = find_needed_objects(home)
        here = digests & set(os.listdir(home.folder("objects")))
        kept_digests = here if needed is None else here & needed
        for digest in here - kept_digests:
            os.unlink(home.object(digest))
        fsync_folder(home.folder("objects"))
    return ForgetResult(tuple(sorted(kept_digests)))


def _check_claim(blob: Blob) -> None:
    """Refuse a packed blob that declares a size out of proportion to its bytes."""
    if blob.encoding == "packed" and blob.size > get_expansion_limit(blob.wire_size):
        raise AgentError(
            "bad_job",
            f"{blob.digest[:12]}: {blob.wire_size} bytes declare an expanded size of {blob.size}",
            hint="build the bundle again; nothing was changed on the device",
        )


def _count_present_bytes(home: Home, blob: Blob) -> int:
    part = home.part(blob.digest, blob.wire_digest)
    for path in list_copies(home, blob.digest):
        if os.path.isfile(path) and sha256_of(path) == blob.digest:
            return -1
    size = os.path.getsize(part) if os.path.isfile(part) else 0
    return size if size <= blob.wire_size else 0


def _check_space(home: Home, pairs: List[Tuple[Blob, int]], site: Optional[str]) -> None:
    """Check that there is disk space for all blobs and, while they are decoded, their sent bytes.

    If needed, runtimes that no release uses are removed, except the one at ``site``.
    """
    kept_bytes = peak = waiting = 0
    for blob, offset in pairs:
        decoded = blob.size if blob.encoding == "zlib" else 0
        peak = max(peak, kept_bytes + blob.wire_size - offset + decoded)
        if blob.encoding == "packed":
            kept_bytes += blob.wire_size - offset  # expanded after all blobs have been received
            waiting += blob.size
        else:
            kept_bytes += blob.size
    peak = max(peak, kept_bytes + waiting)
    if peak + _SPARE_BYTES > free_bytes(home):
        remove_spares(home, site)
    missing = peak + _SPARE_BYTES - free_bytes(home)
    if missing > 0:
        raise AgentError(
            "no_space",
            f"{home.path}: {missing / 2**20:.1f} MiB of disk space missing",
            hint=f"free some space: the release needs {(peak + _SPARE_BYTES) / 2**20:.1f} MiB",
        )


def _receive_blob(home: Home, blob: Blob, offset: int, inlet: Inlet) -> Iterator[int]:
    """Append a blob's bytes to its part and verify them; yield the size of each chunk."""
    path = home.part(blob.digest, blob.wire_digest)
    if (os.path.getsize(path) if os.path.isfile(path) else 0) < offset:
        raise AgentError(
            "corrupt",
            f"{path}: fewer than the {offset} bytes from which the transfer would resume",
            hint="run the command again",
            transient=True,
        )
    digest = hashlib.sha256()
    with open(path, "r+b" if offset else "wb") as file:
        for chunk in _read_chunks(file, offset):
            digest.update(chunk)
        file.truncate(offset)
        size = offset
        while size < blob.wire_size:
            chunk = inlet.take(min(_TAKE_BYTES, blob.wire_size - size))
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            yield len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != blob.wire_digest:
        raise _drop_corrupt(path, "was damaged in transfer")


def _read_chunks(file: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        chunk = file.read(min(CHUNK, count))
        if not chunk:
            return
        count -= len(chunk)
        yield chunk


def _keep(home: Home, blob: Blob) -> None:
    """Turn a complete part into an object."""
    part, path = home.part(blob.digest, blob.wire_digest), home.object(blob.digest)
    if blob.encoding == "zlib":
        _decode(part, path, blob)
        os.unlink(part)
        return
    if blob.encoding != "raw":
        raise AgentError("bad_job", f"unknown encoding {blob.encoding!r}; known: raw, zlib, packed")
    if (blob.digest, blob.size) != (blob.wire_digest, blob.wire_size):
        raise _drop_corrupt(part, "is sent raw but has another digest than its content")
    os.replace(part, path)
    fsync_folder(home.folder("objects"))


def _expand(home: Home, blob: Blob, expand: Expand, site: Optional[str]) -> None:
    """Turn a complete packed part into an object, or drop it."""
    part = home.part(blob.digest, blob.wire_digest)
    try:
        expand(ExpandJob(part, home.object(blob.digest), blob, site))
    except AgentError as error:
        if error.failure.kind != "corrupt":
            raise
        raise _drop_corrupt(part, error.failure.message) from error
    os.unlink(part)


def _decode(part: str, path: str, blob: Blob) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with open(part, "rb") as source, open_atomic(path) as target:
            for data in _inflate(source):
                size += len(data)
                if size > blob.size:
                    raise _drop_corrupt(part, f"expands to more than {blob.size} bytes")
                digest.update(data)
                target.write(data)
            if digest.hexdigest() != blob.digest:
                raise _drop_corrupt(part, "expands to other content than expected")
    except zlib.error as error:
        raise _drop_corrupt(part, f"cannot be unpacked: {error}") from error


def _inflate(source: BinaryIO) -> Iterator[bytes]:
    decoder = zlib.decompressobj()
    for chunk in iter(lambda: source.read(_TAKE_BYTES), b""):
        while chunk:
            # Bounded, so that the size is checked before a few bytes expand to gigabytes.
            yield decoder.decompress(chunk, CHUNK)
            chunk = decoder.unconsumed_tail
    yield decoder.flush()


def _drop_corrupt(part: str, what: str) -> AgentError:
    if os.path.exists(part):
        os.unlink(part)
    name = os.path.basename(part)
    return AgentError("corrupt", f"{name} {what}", hint="run the command again", transient=True)
