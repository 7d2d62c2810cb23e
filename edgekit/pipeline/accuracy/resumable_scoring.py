"""Scoring of a model on this machine or a device; an interrupted scoring is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from edgekit.cache.store import Store
from edgekit.data.dataset import Dataset
from edgekit.errors import DeviceError
from edgekit.metrics.user_code.row_reducer import RowReducer, list_agent_metrics
from edgekit.pipeline.accuracy.tallies import (
    Scoring,
    check_statistics,
    join_tallies,
    upgrade_tally,
)
from edgekit.pipeline.timing import Agent
from edgekit.progress import Tick
from edgekit_agent.codec import decode, encode
from edgekit_agent.metrics.rows import decode_rows, join_pieces
from edgekit_agent.samples import Samples
from edgekit_agent.worker_jobs import Combination, ModelRef, ScoreJob
from edgekit_agent.worker_results import StageProgress, Statistics, Tally

_KIND = "unfinished-tallies"
# Most characters of encoded rows that an agent may send for one scoring.
_MOST_TEXT = 1 << 30
# Most scoring time that is lost when the process is killed.
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Storage of an unfinished tally; ``key`` identifies model, samples and metrics."""

    store: Store
    key: str

    def recall(self, scoring: Scoring, total: int) -> Tally | None:
        """Return the stored tally of the first samples; ``None`` if there is no valid one."""
        found = self.store.recall_as(_KIND, self.key, partial(decode, Tally))
        if found is None or not 0 < found.n < total:
            return None
        if tuple(each.metric for each in found.statistics) != scoring.names:
            return None
        try:
            for each in found.statistics:
                decode_rows(each, found.n)
        except ValueError:
            return None
        return found

    def remember(self, tally: Tally) -> None:
        """Store the tally of the samples scored so far."""
        self.store.remember(_KIND, self.key, encode(tally))

    def forget(self) -> None:
        """Remove the stored tally."""
        self.store.forget(_KIND, self.key)


@dataclass
class _Progress:
    """Tallies of the samples scored so far, extended by each part.

    ``pieces`` are those of the next sample's rows.
    """

    unfinished: Unfinished | None
    parts: list[Tally]
    total: int
    reducer: RowReducer
    text: int = 0
    pieces: list[Statistics] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    is_saved: bool = True

    def receive(self, said: StageProgress) -> None:
        """Add the part of the tally in a progress report, if any.

        Raises:
            DeviceError: It is not of the next samples, or all parts together are too large.
        """
        if said.part is None:
            return
        if said.part.piece is not None:
            self._keep_piece(said.part.start, said.part.piece)
            return
        if not said.part.tally.statistics:
            return
        begin, end = said.part.start, said.part.start + said.part.tally.n
        if begin != self.next_sample or end > self.total:
            raise DeviceError(
                f"invalid answer of the agent: results of samples {begin} to {end} instead of "
                f"{self.next_sample} to {self.total} at most"
            )
        reduced = self.reducer.reduce(self._join_pieces(said.part.tally), begin)
        self.text += sum(len(each.values) + len(each.lengths) for each in reduced.statistics)
        self._check_text(self.text, end)
        self.parts.append(reduced)
        self.is_saved = False
        if time.monotonic() - self.saved_at >= _SAVE_EVERY_S:
            self.save()

    def _keep_piece(self, start: int, piece: Statistics) -> None:
        if start != self.next_sample:
            raise DeviceError(
                f"invalid answer of the agent: a piece of sample {start} instead of "
                f"{self.next_sample}"
            )
        self.pieces.append(piece)
        self._check_text(self.text + sum(len(each.values) for each in self.pieces), start + 1)

    def _join_pieces(self, tally: Tally) -> Tally:
        """Return a part with the pieces that were sent before it."""
        if not self.pieces:
            return tally
        pieces, self.pieces = self.pieces, []
        if tally.n != 1:
            raise DeviceError("invalid answer of the agent: pieces of more than one sample")
        try:
            joined = tuple(
                join_pieces([piece for piece in pieces if piece.metric == each.metric], each)
                for each in tally.statistics
            )
        except ValueError as error:
            raise DeviceError(f"invalid answer of the agent: {error}") from error
        return replace(tally, statistics=joined)

    def _check_text(self, text: int, samples: int) -> None:
        if text > _MOST_TEXT:
            raise DeviceError(
                f"the statistics of {samples} samples are larger than {_MOST_TEXT >> 20} MiB",
                hint="use fewer samples, or a metric that needs less of each",
                kind="bad_job",
            )

    @property
    def next_sample(self) -> int:
        """Return the number of the next sample to score."""
        return sum(part.n for part in self.parts)

    def save(self) -> None:
        """Save the tally in the store, if it has changed."""
        if self.unfinished is None or self.is_saved:
            return
        self.parts = [join_tallies(self.parts)]
        self.unfinished.remember(self.parts[0])
        self.saved_at, self.is_saved = time.monotonic(), True


def score(
    agent: Agent,
    model: ModelRef,
    samples: Samples,
    *,
    scoring: Scoring,
    tick: Tick,
    dataset: Dataset | None = None,
    combination: Combination | None = None,
    sends_code: bool = False,
    unfinished: Unfinished | None = None,
) -> Tally:
    """Compute the statistics of a model's answers on samples with targets.

    Args:
        agent: The agent that runs the model.
        model: The model, by its path on the agent's machine.
        samples: The samples, by their paths on the agent's machine.
        scoring: Metrics and post-processing.
        tick: Progress callback.
        dataset: The samples on this machine, with their targets, for metrics of the user.
        combination: Several models, of which ``model`` is one, whose answers are scored instead.
        sends_code: Whether metrics of the user run where the model runs, instead of here on the
            outputs that come back.
        unfinished: Storage from which an earlier attempt is resumed, and to which this attempt is
            saved if it is interrupted.

    Raises:
        DeviceError: The agent failed, or its answer does not cover the samples.
        UserError: The code of a metric of the user raises an error, or gives a wrong answer.
    """
    reducer = RowReducer(scoring.metrics, dataset, sends_code=sends_code)
    unfinished = unfinished if reducer.is_resumable else None
    total = (samples.label or samples.columns[0]).shape[0]
    known = unfinished.recall(scoring, total) if unfinished else None
    progress = _Progress(
        unfinished=unfinished, parts=[known] if known else [], total=total, reducer=reducer
    )
    metrics = list_agent_metrics(scoring.metrics, sends_code=sends_code)
    first = metrics[0]
    job = ScoreJob(
        model,
        samples,
        first.name,
        first.options.output,
        start=progress.next_sample,
        metrics=metrics,
        postprocess=scoring.postprocess,
        combination=combination,
    )
    try:
        rest = agent.ask(job, Tally, progress=_make_listener(progress, tick))
    finally:
        progress.save()
    n = progress.next_sample + rest.n
    if progress.pieces:
        raise DeviceError(f"invalid answer of the agent: sample {progress.next_sample} is cut off")
    if n != total:
        raise DeviceError(f"invalid answer of the agent: results of {n} samples instead of {total}")
    last = reducer.reduce(upgrade_tally(rest), progress.next_sample)
    if unfinished:
        unfinished.forget()
    joined = join_tallies([*progress.parts, last])
    check_statistics(joined, scoring)
    return reducer.finish(joined)


def _make_listener(progress: _Progress, tick: Tick) -> Callable[[StageProgress], None]:
    def receive(said: StageProgress) -> None:
        progress.receive(said)
        tick(said.stage, said.done, said.total)

    return receive
