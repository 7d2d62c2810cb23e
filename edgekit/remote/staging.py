"""Models and samples for a job on a device: sent by digest, found by it, and forgotten again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edgekit.errors import DeviceError
from edgekit.remote.sending import send
from edgekit.remote.session import Progress, Session
from edgekit_agent.files import sha256_of
from edgekit_agent.jobs import ForgetJob
from edgekit_agent.results import Forgotten
from edgekit_agent.samples import Column, Samples


def stage_file(session: Session, path: Path, progress: Progress | None = None) -> str:
    """Have a file on the device; returns its path there."""
    return _stage(session, _digests([str(path)]), progress)[str(path)]


def stage_samples(session: Session, samples: Samples, progress: Progress | None = None) -> Samples:
    """Have the files that hold the samples on the device; the same samples as found there.

    They stay there until ``forget(session, staged_digests(...))`` of what this returns. Cut off in
    the middle, nothing of them stays where the device can still be told.
    """
    there = _stage_or_forget(session, [c.path for c in samples.files()], progress)

    def moved(column: Column) -> Column:
        return replace(column, path=there[column.path])

    return replace(
        samples,
        columns=tuple(moved(c) for c in samples.columns),
        label=moved(samples.label) if samples.label else None,
        constants=tuple(moved(c) for c in samples.constants),
        states=tuple(replace(s, initial=moved(s.initial)) for s in samples.states),
        sequence=moved(samples.sequence) if samples.sequence else None,
    )


def staged_digests(samples: Samples) -> tuple[str, ...]:
    """What ``forget`` removes of samples as ``stage_samples`` returned them."""
    return tuple(dict.fromkeys(PurePosixPath(c.path).name for c in samples.files()))


def forget(session: Session, digests: Iterable[str]) -> tuple[str, ...]:
    """Remove staged files from the device, half-sent ones included.

    Args:
        session: the device.
        digests: sha256 of the files.

    Returns:
        Those that stay because a release there is made of them.

    Raises:
        DeviceError: it could not be told; the next push that installs something removes them.
    """
    job = ForgetJob(home=session.home, digests=tuple(digests))
    return session.ask(job, Forgotten).kept if job.digests else ()


def _stage_or_forget(
    session: Session, paths: Iterable[str], progress: Progress | None
) -> dict[str, str]:
    digests = _digests(paths)
    try:
        return _stage(session, digests, progress)
    except BaseException:
        with contextlib.suppress(DeviceError):
            forget(session, digests.values())
        raise


def _digests(paths: Iterable[str]) -> dict[str, str]:
    return {path: sha256_of(path) for path in dict.fromkeys(paths)}


def _stage(
    session: Session, digests: Mapping[str, str], progress: Progress | None
) -> dict[str, str]:
    sent = send(session, [(Path(path), digest) for path, digest in digests.items()], progress)
    return {path: sent[digest] for path, digest in digests.items()}
