"""Choice of the winning candidate, or of the nearest one if none passes."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.bundle.results import Candidate

# Latencies within this factor count as equal; then the smaller download wins.
_TIE = 1.03
# A file of at most this share of the original's is compressed, not only converted.
_COMPRESSED = 0.5


def choose_candidate(candidates: Sequence[Candidate], *, source: str) -> Candidate | None:
    """Choose the fastest passing candidate; among equally fast ones, the smallest download.

    Candidates of at most half of the original's size that are not slower than it come first: a
    small model may be fastest as it is, converted to another format, but was to be compressed.

    Args:
        candidates: all with verdicts, the original among them.
        source: whose latencies count (``host`` or ``device:NAME``).

    Returns:
        The candidate; ``None`` if none passes.
    """
    passing = [c for c in candidates if c.verdict and c.verdict.passes]
    if not passing:
        return None
    passing = _list_compressed(candidates, passing, source) or passing
    fastest = min(_get_latency_ms(c, source) for c in passing)
    contenders = [c for c in passing if _get_latency_ms(c, source) <= _TIE * fastest]
    return min(contenders, key=lambda c: (_get_transfer_bytes(c, source), c.recipe.name))


def _list_compressed(
    candidates: Sequence[Candidate], passing: Sequence[Candidate], source: str
) -> list[Candidate]:
    """List the passing candidates that are much smaller than the original and not slower."""
    original = next((c for c in candidates if not c.recipe.steps), None)
    if original is None:
        return []
    most_bytes = _COMPRESSED * _get_file_bytes(original)
    limit_ms = _TIE * _get_latency_ms(original, source)
    return [
        c
        for c in passing
        if _get_file_bytes(c) <= most_bytes and _get_latency_ms(c, source) <= limit_ms
    ]


def find_nearest(candidates: Sequence[Candidate], *, source: str) -> Candidate:
    """Return the candidate that is nearest to the budgets.

    A candidate that runs comes first, then the fewest failing checks, then the smallest excess,
    then the latency.

    Args:
        candidates: all with verdicts, the original among them.
        source: whose latencies count (``host`` or ``device:NAME``).
    """
    return min(candidates, key=lambda c: (_get_shortfall(c), _get_latency_ms(c, source)))


def _get_shortfall(candidate: Candidate) -> tuple[int, int, float]:
    return candidate.verdict.shortfall if candidate.verdict else (0, 0, 0.0)


def _get_latency_ms(candidate: Candidate, source: str) -> float:
    measurement = candidate.get_measurement(source)
    times = measurement.times if measurement else None
    return times.quiet_p50_ms if times else float("inf")


def _get_transfer_bytes(candidate: Candidate, source: str) -> int:
    measurement = candidate.get_measurement(source)
    return measurement.transfer_bytes if measurement else candidate.model.bytes


def _get_file_bytes(candidate: Candidate) -> int:
    measured = candidate.measurements
    return measured[0].model_bytes if measured else candidate.model.bytes
