"""Models and samples for a job on a device: sent by digest, found again by the same name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgekit.remote.sending import send
from edgekit.remote.session import Progress, Session
from edgekit_agent.files import sha256_of
from edgekit_agent.records import Column, Samples


def stage_file(session: Session, path: Path, progress: Progress | None = None) -> str:
    """Have a file on the device; returns its path there."""
    return _stage(session, [str(path)], progress)[str(path)]


def stage_samples(session: Session, samples: Samples, progress: Progress | None = None) -> Samples:
    """Have the files that hold the samples on the device; the same samples as found there."""
    columns = (*samples.columns, *([samples.label] if samples.label else []))
    there = _stage(session, (c.path for c in columns), progress)

    def moved(column: Column) -> Column:
        return replace(column, path=there[column.path])

    return replace(
        samples,
        columns=tuple(moved(c) for c in samples.columns),
        label=moved(samples.label) if samples.label else None,
    )


def _stage(session: Session, paths: Iterable[str], progress: Progress | None) -> dict[str, str]:
    digests = {path: sha256_of(path) for path in dict.fromkeys(paths)}
    sent = send(session, [(Path(path), digest) for path, digest in digests.items()], progress)
    return {path: sent[digest] for path, digest in digests.items()}
