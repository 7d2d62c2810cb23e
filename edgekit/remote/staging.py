"""Staging of models and samples on a device for a job, and their removal afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edgekit.errors import DeviceError
from edgekit.remote.session import Progress, Session
from edgekit.remote.upload import send
from edgekit_agent.files import sha256_of
from edgekit_agent.jobs import ForgetJob
from edgekit_agent.results import ForgetResult
from edgekit_agent.samples import Column, Samples


def stage_file(session: Session, path: Path, progress: Progress | None = None) -> str:
    """Send a file unless the device has it; return its path there."""
    return _stage(session, _compute_digests([str(path)]), progress)[str(path)]


def stage_samples(session: Session, samples: Samples, progress: Progress | None = None) -> Samples:
    """Send the files of samples to the device; return the samples with their paths there.

    The files stay until ``forget(session, get_staged_digests(...))`` with the returned samples. If
    staging fails, they are removed at once, as long as the device can be reached.
    """
    there = _stage_or_forget(session, [c.path for c in samples.files()], progress)

    def with_device_path(column: Column) -> Column:
        return replace(column, path=there[column.path])

    return replace(
        samples,
        columns=tuple(with_device_path(c) for c in samples.columns),
        label=with_device_path(samples.label) if samples.label else None,
        constants=tuple(with_device_path(c) for c in samples.constants),
        states=tuple(replace(s, initial=with_device_path(s.initial)) for s in samples.states),
        sequence=with_device_path(samples.sequence) if samples.sequence else None,
        targets=tuple(with_device_path(c) for c in samples.targets),
        lengths=tuple(with_device_path(c) for c in samples.lengths),
    )


def get_staged_digests(samples: Samples) -> tuple[str, ...]:
    """Return the digests of staged samples, for ``forget``."""
    return tuple(dict.fromkeys(PurePosixPath(c.path).name for c in samples.files()))


def forget(session: Session, digests: Iterable[str]) -> tuple[str, ...]:
    """Remove staged files from the device, half-sent ones included.

    Args:
        session: the device.
        digests: sha256 of the files.

    Returns:
        The digests of files that stay because a release on the device uses them.

    Raises:
        DeviceError: the device could not be asked; the next installation removes the files.
    """
    job = ForgetJob(home=session.home, digests=tuple(digests))
    return session.ask(job, ForgetResult).kept if job.digests else ()


def _stage_or_forget(
    session: Session, paths: Iterable[str], progress: Progress | None
) -> dict[str, str]:
    digests = _compute_digests(paths)
    try:
        return _stage(session, digests, progress)
    except BaseException:
        with contextlib.suppress(DeviceError):
            forget(session, digests.values())
        raise


def _compute_digests(paths: Iterable[str]) -> dict[str, str]:
    return {path: sha256_of(path) for path in dict.fromkeys(paths)}


def _stage(
    session: Session, digests: Mapping[str, str], progress: Progress | None
) -> dict[str, str]:
    sent = send(session, [(Path(path), digest) for path, digest in digests.items()], progress)
    return {path: sent[digest] for path, digest in digests.items()}
