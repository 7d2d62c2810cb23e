"""Rows of metrics for a few samples, with several kinds of post-processing at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.config.project import PostprocessTable
from edgekit.errors import UserError
from edgekit.metrics.metric import Floats, Table
from edgekit.metrics.registry import get_metric
from edgekit.model import Model
from edgekit.onnx_graph.runs.activations import get_batch_size, to_agent_tensor
from edgekit.onnx_graph.runs.model_outputs import Arrays, iter_outputs
from edgekit.pipeline.accuracy.tallies import Scoring, drop_unscored
from edgekit.pipeline.proposals.calibrated_loss import compute_calibrated_loss
from edgekit.progress import Tick
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import Batch, iter_batches
from edgekit_agent.measure.scored_samples import iter_scored_samples
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.samples import Samples
from edgekit_agent.scoring import MetricJob, MetricOptions

Scores = Literal["logits", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """A metric with a post-processing to try.

    Attributes:
        table: Settings of the post-processing; ``None`` = none.
        scoring: The metric, and the post-processing for the agent.
        scores: What the scores of classes are, if they decide between equally good preprocessings.
    """

    table: PostprocessTable | None
    scoring: Scoring
    scores: Scores | None = None

    @property
    def job(self) -> MetricJob:
        """Return the metric."""
        return self.scoring.metrics[0]


@dataclass(kw_only=True)
class ScoredRows:
    """Rows of the metric of one head, or the reason why outputs and metric do not fit."""

    head: Head
    rows: list[NDArray[np.float64]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    trouble: AgentError | None = None

    def add(self, batch: Batch, outputs: Arrays) -> None:
        """Compute the rows of a batch."""
        if self.trouble is not None:
            return
        job = self.head.job
        statistic, names = _get_statistic(job), (job.options.output,)
        try:
            for sample in iter_scored_samples(
                batch, dict(outputs), names, self.head.scoring.postprocess
            ):
                self.rows.append(statistic(sample, job.options))
                if self.head.scores:
                    scores = sample.get_output(job.options.output)
                    self.scores.append(np.asarray(scores, np.float64).reshape(-1))
                    self.labels.append(int(sample.get_target().item()))
        except AgentError as error:
            self.trouble = error

    @property
    def table(self) -> Table:
        """Return the rows of the samples that the metric scores."""
        return drop_unscored(Table(rows=tuple(self.rows)))

    @property
    def loss(self) -> float:
        """Return the calibrated log loss; 0 if there are no scores of classes."""
        if not self.scores:
            return 0.0
        are_logits = self.head.scores == "logits"
        return compute_calibrated_loss(self.scores, self.labels, are_logits=are_logits)


def compute_rows(
    model: Model, parts: Sequence[Samples], heads: Sequence[Head], *, tick: Tick
) -> tuple[ScoredRows, ...]:
    """Run the model once on samples, and compute the rows of several heads.

    Args:
        model: The model.
        parts: The samples.
        heads: Metrics, each with its post-processing.
        tick: Progress callback with the number of samples done and in total.

    Raises:
        UserError: The model fails on the samples, or no metric fits them.
    """
    found = tuple(ScoredRows(head=head) for head in heads)
    total, done = sum(part.columns[0].shape[0] for part in parts), 0
    try:
        for batch, outputs in _iter_runs(model, parts):
            for each in found:
                each.add(batch, outputs)
            done += batch.rows
            tick("trying preprocessings", done, total)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error
    troubles = [each.trouble for each in found if each.trouble is not None]
    if len(troubles) == len(found):
        raise UserError(troubles[0].failure.message, hint=troubles[0].failure.hint)
    return found


def _get_statistic(job: MetricJob) -> Callable[[ScoredSample, MetricOptions], Floats]:
    """Return the function that computes the row of a sample, also for code of the user."""
    code = get_metric(job.name).code
    if code is None:
        return load_statistic(job.name)
    return lambda sample, _: code.compute_values(
        [sample.outputs], [sample.targets], first=sample.number
    )


def _iter_runs(model: Model, parts: Sequence[Samples]) -> Iterator[tuple[Batch, Arrays]]:
    tensors = tuple(map(to_agent_tensor, model.signature.inputs))
    size = get_batch_size(parts[0], model.signature)
    waiting = list[Batch]()

    def feeds() -> Iterator[Arrays]:
        for part in parts:
            for batch in iter_batches(part, tensors, size):
                waiting.append(batch)
                yield batch.inputs

    for made in iter_outputs(model, feeds()):
        batch = waiting.pop()
        if isinstance(made, str):
            raise UserError(f"{model.display_name}: the model fails on the samples: {made}")
        yield batch, {spec.name: made[spec.name] for spec in model.signature.outputs}
