"""Statistics of all samples by each metric: how they are asked for, joined and aggregated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.results import Score
from edgekit.errors import DeviceError, EdgekitError
from edgekit.metrics.metric import Metric, Table
from edgekit.metrics.registry import get_metric
from edgekit.metrics.row_checks import UnequalRowsError
from edgekit_agent.codec import encode
from edgekit_agent.measure.accuracy import hits_from_hex
from edgekit_agent.metrics.rows import decode_rows, encode_rows
from edgekit_agent.scoring import MetricJob, Postprocess
from edgekit_agent.worker_results import Tally


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Metrics of a build with their options, the gated one first, and the post-processing."""

    metrics: tuple[MetricJob, ...]
    postprocess: Postprocess | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the metrics."""
        return tuple(metric.name for metric in self.metrics)

    @property
    def digest(self) -> str:
        """Return a digest of everything that decides the statistics."""
        facts: list[object] = [encode(m) for m in self.metrics]
        facts += [code.digest for m in self.metrics if (code := get_metric(m.name).code)]
        shown = encode(self.postprocess) if self.postprocess else None
        return hashlib.sha256(json.dumps([facts, shown], sort_keys=True).encode()).hexdigest()


def upgrade_tally(tally: Tally) -> Tally:
    """Return a tally of an agent of protocol 1.0 in the present form."""
    if tally.statistics:
        return tally
    hits = hits_from_hex(tally.hits, tally.n).astype(np.float64)
    rows = np.stack([hits, np.array(tally.predictions, np.float64)], axis=1)
    return Tally(tally.metric, tally.n, statistics=(encode_rows(tally.metric, list(rows)),))


def join_tallies(parts: Sequence[Tally]) -> Tally:
    """Join the tallies of consecutive samples by the same metrics."""
    if len(parts) == 1:
        return parts[0]
    joined = []
    for number, first in enumerate(parts[0].statistics):
        rows = [row for part in parts for row in decode_rows(part.statistics[number], part.n)]
        joined.append(encode_rows(first.metric, rows))
    return replace(parts[0], n=sum(part.n for part in parts), statistics=tuple(joined))


def check_statistics(tally: Tally, scoring: Scoring) -> None:
    """Check that the rows of each metric can be those of its statistic.

    Raises:
        DeviceError: They cannot; or samples differ in size, which the metric does not take.
    """
    for job, statistics in zip(scoring.metrics, tally.statistics, strict=True):
        check = get_metric(job.name).check_rows
        if check is None:
            continue
        try:
            check(decode_rows(statistics, tally.n), job.options)
        except UnequalRowsError as error:
            raise DeviceError(
                f"metric {job.name}: {error}",
                hint="use outputs and targets of one size for all samples, or another metric",
                kind="bad_job",
            ) from error
        except ValueError as error:
            raise DeviceError(f"invalid answer of the agent: {job.name}: {error}") from error


def read_table(tally: Tally, metric: str, groups: NDArray[np.int64] | None = None) -> Table:
    """Return the rows of one metric.

    Raises:
        EdgekitError: The tally has no such metric.
    """
    found = next((each for each in tally.statistics if each.metric == metric), None)
    if found is None:
        raise EdgekitError(f"no statistics of {metric}")
    return Table(rows=tuple(decode_rows(found, tally.n)), groups=groups)


def compute_scores(
    tally: Tally, scoring: Scoring, groups: NDArray[np.int64] | None = None
) -> tuple[Score, ...]:
    """Compute the value of each metric."""
    key = None if groups is None else groups.tobytes()
    return tuple(_compute_score(tally, get_metric(m.name), m, key) for m in scoring.metrics)


@lru_cache(maxsize=512)
def _compute_score(tally: Tally, metric: Metric, job: MetricJob, groups: bytes | None) -> Score:
    known = None if groups is None else np.frombuffer(groups, np.int64)
    return build_score(metric, read_table(tally, job.name, known), job)


def build_score(metric: Metric, table: Table, job: MetricJob) -> Score:
    """Compute the value of a metric on the scored samples of a table."""
    scored = drop_unscored(table)
    value = metric.compute_value(scored, job.options) if scored.n else float("nan")
    correct = int(sum(row[0] for row in scored.rows)) if metric.is_proportion else None
    return Score(
        metric=metric.name,
        title=metric.title,
        value=value,
        n=scored.n,
        is_share=metric.is_share,
        correct=correct,
    )


def drop_unscored(table: Table) -> Table:
    """Return the table without the samples that have no row."""
    scored = np.array([row.size > 0 for row in table.rows], bool)
    return table if scored.all() else table.select(scored)
