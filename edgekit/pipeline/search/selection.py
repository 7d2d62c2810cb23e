"""Choice of the winning candidate, or of the nearest one if none passes."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.bundle.results import Candidate

# Latencies within this factor count as equal; then the smaller download wins.
_TIE = 1.03


def choose_candidate(candidates: Sequence[Candidate], *, source: str) -> Candidate | None:
    """Choose the fastest passing candidate; among equally fast ones, the smallest download.

    Args:
        candidates: all with verdicts, the original among them.
        source: whose latencies count (``host`` or ``device:NAME``).

    Returns:
        The candidate; ``None`` if none passes.
    """
    passing = [c for c in candidates if c.verdict and c.verdict.passes]
    if not passing:
        return None
    fastest = min(_get_latency_ms(c, source) for c in passing)
    contenders = [c for c in passing if _get_latency_ms(c, source) <= _TIE * fastest]
    return min(contenders, key=lambda c: (_get_transfer_bytes(c, source), c.recipe.name))


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
