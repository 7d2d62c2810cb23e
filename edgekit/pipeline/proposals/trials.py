"""Trials of preprocessings and post-processings on a few labeled samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.bundle.results import Score
from edgekit.config.project import PreprocessSettings
from edgekit.data.subsets import select_spread
from edgekit.errors import UserError
from edgekit.metrics.metric import Metric, Table
from edgekit.metrics.registry import get_metric
from edgekit.model import Model
from edgekit.pipeline.accuracy.tallies import build_score
from edgekit.pipeline.proposals.sample_rows import Head, ScoredRows, compute_rows
from edgekit.progress import Tick
from edgekit_agent.samples import Samples
from edgekit_agent.scoring import MetricJob

# Samples for the trials of init.
SAMPLES = 50
# Samples on which several post-processings are compared.
_FEW = 8
# Two values that differ less, relative to the better one, are equal. A log loss below the second
# number is that of a model that is nearly always right.
_EQUAL, _SMALL_LOSS = 1e-3, 0.1
_NO_ROWS = Table(rows=())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A preprocessing to try, its name for the user, and samples that are preprocessed so."""

    name: str
    settings: PreprocessSettings
    parts: Sequence[Samples]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A preprocessing with its best post-processing, and the result on the samples.

    Attributes:
        candidate: The preprocessing.
        head: Metric and post-processing.
        table: Rows of the metric.
        loss: Calibrated log loss, which decides between equally good values of the metric; 0 if
            there is none.
        trouble: Why there is no result; empty if there is one.
    """

    candidate: Candidate
    head: Head
    table: Table = _NO_ROWS
    loss: float = 0.0
    trouble: str = ""

    @property
    def job(self) -> MetricJob:
        """Return the metric that decides."""
        return self.head.job

    @property
    def metric(self) -> Metric:
        """Return the metric that decides."""
        return get_metric(self.job.name)

    @property
    def score(self) -> Score:
        """Return the value of the metric on the samples."""
        return build_score(self.metric, self.table, self.job)

    @property
    def gain(self) -> float:
        """Return the value of the metric, negated if lower is better; -inf if there is none."""
        if self.trouble:
            return -math.inf
        value = self.score.value if self.metric.higher_is_better else -self.score.value
        return value if math.isfinite(value) else -math.inf

    @property
    def full_text(self) -> str:
        """Return preprocessing, value of the metric and post-processing for a message."""
        kind = f" ({self.head.table.kind})" if self.head.table and not self.trouble else ""
        return f"{self.candidate.name}: {self.value_text}{kind}"

    @property
    def value_text(self) -> str:
        """Return the value of the metric for a message, or why there is none."""
        if self.trouble:
            return f"no value ({self.trouble})"
        score = self.score
        if score.correct is not None:
            return f"{score.correct} of {score.n} correct"
        return f"{score.title} {score}"


def try_candidates(
    model: Model, candidates: Sequence[Candidate], heads: Sequence[Head], *, tick: Tick
) -> list[Trial]:
    """Score the model with each preprocessing and the best post-processing.

    Of several post-processings, the one with the best value on a few samples is used.

    Args:
        model: The model.
        candidates: Preprocessings, the plainest first.
        heads: Post-processings, the most usual first.
        tick: Progress callback.

    Raises:
        UserError: The model fails with each preprocessing.
    """
    if len(heads) > 1:
        first = [replace(c, parts=select_spread(c.parts, _FEW)) for c in candidates]
        heads = [choose_best(_run_trials(model, first, heads, tick)).head]
    return _run_trials(model, candidates, heads, tick)


def _run_trials(
    model: Model, candidates: Sequence[Candidate], heads: Sequence[Head], tick: Tick
) -> list[Trial]:
    found: list[Trial] = []
    errors: list[UserError] = []
    for number, candidate in enumerate(candidates):

        def tick_all(stage: str, done: int, total: int, number: int = number) -> None:
            tick(stage, number * total + done, len(candidates) * total)

        try:
            rows = compute_rows(model, candidate.parts, heads, tick=tick_all)
            found.append(_choose_head(candidate, rows))
        except UserError as error:
            errors.append(error)
            found.append(Trial(candidate=candidate, head=heads[0], trouble=error.message))
    if len(errors) == len(candidates):
        raise errors[0]
    return found


def choose_best(tried: Sequence[Trial]) -> Trial:
    """Return the trial with the best value of the metric; the first of equally good ones.

    Where there are scores of classes, their calibrated log loss decides between those that the
    metric does not tell apart: a few samples more or less are within its standard error.
    """
    best = max(tried, key=lambda trial: trial.gain)
    rivals = [trial for trial in tried if not _is_clearly_worse(trial, best)]
    least = min(trial.loss for trial in rivals)
    return next(t for t in rivals if t.loss - least <= _EQUAL * max(least, _SMALL_LOSS))


def _choose_head(candidate: Candidate, rows: Sequence[ScoredRows]) -> Trial:
    trials = list(_iter_trials(candidate, rows))
    if not trials:
        raise UserError(f"no sample is scored by {rows[0].head.job.name}")
    return max(trials, key=lambda trial: trial.gain)


def _iter_trials(candidate: Candidate, rows: Sequence[ScoredRows]) -> Iterator[Trial]:
    for each in rows:
        if each.trouble is None and each.table.n:
            yield Trial(candidate=candidate, head=each.head, table=each.table, loss=each.loss)


def _is_clearly_worse(trial: Trial, best: Trial) -> bool:
    """Return whether a trial is worse, by more than the standard error if a log loss decides.

    The standard error is that of paired proportions (McNemar 1947).
    """
    if trial.trouble:
        return True
    if not (best.head.scores and best.metric.is_proportion):
        return best.gain - trial.gain > _EQUAL * abs(best.gain)
    one, other = (each.table.stack()[:, 0] for each in (best, trial))
    difference = one - other
    return float(difference.sum()) > math.sqrt(np.abs(difference).sum())


def scale_parts(parts: Sequence[Samples], settings: PreprocessSettings) -> list[Samples]:
    """Return samples with the scaling and layout of other settings."""
    return [replace(part, preprocess=settings.to_preprocess()) for part in parts]
