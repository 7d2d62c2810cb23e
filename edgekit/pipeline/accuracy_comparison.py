"""Comparison of the tallies of original and candidate by each metric of a build."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.comparison import Comparison, compare
from edgekit.metrics.metric import Margin, Metric
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.tallies import Scoring, read_table
from edgekit_agent.results import Tally
from edgekit_agent.scoring import MetricJob


def compare_tallies(
    reference: Tally,
    candidate: Tally,
    *,
    scoring: Scoring,
    margins: tuple[Margin, ...],
    groups: NDArray[np.int64] | None = None,
    same_model: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare two tallies of the same samples by every metric.

    Args:
        reference: Tally of the original.
        candidate: Tally of the candidate.
        scoring: The metrics.
        margins: Largest loss of each metric.
        groups: Group of each sample; ``None`` = each is independent.
        same_model: Whether the candidate is the original.
        seed: Seed of the bootstrap.

    Returns:
        The comparison by the gated metric, with those by the guards inside.

    Raises:
        EdgekitError: The tallies are of different samples or metrics.
    """
    key = None if groups is None else groups.tobytes()
    first, *guards = (
        _compare(reference, candidate, get_metric(job.name), job, margin, key, same_model, seed)
        for job, margin in zip(scoring.metrics, margins, strict=True)
    )
    return replace(first, guards=tuple(guards))


@lru_cache(maxsize=512)
def _compare(
    reference: Tally,
    candidate: Tally,
    metric: Metric,
    job: MetricJob,
    margin: Margin,
    groups: bytes | None,
    same_model: bool,
    seed: int,
) -> Comparison:
    known = None if groups is None else np.frombuffer(groups, np.int64)
    return compare(
        metric,
        read_table(reference, job.name, known),
        read_table(candidate, job.name, known),
        options=job.options,
        margin=margin,
        same_model=same_model,
        seed=seed,
    )
