"""Scoring of a model on this machine or a device; an interrupted scoring is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from edgekit.cache.store import Store
from edgekit.errors import DeviceError
from edgekit.pipeline.timing import Agent
from edgekit.progress import Tick
from edgekit_agent.codec import decode, encode
from edgekit_agent.jobs import ModelRef, ScoreJob
from edgekit_agent.measure.accuracy import hits_from_hex, hits_to_hex
from edgekit_agent.results import StageProgress, Tally
from edgekit_agent.samples import Samples

_KIND = "unfinished-tallies"
# Most scoring time that is lost when the process is killed.
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Storage of an unfinished tally; ``key`` identifies model, samples and metric."""

    store: Store
    key: str

    def recall(self, metric: str, total: int) -> Tally | None:
        """Return the stored tally of the first samples; ``None`` if there is no valid one."""
        found = self.store.recall_as(_KIND, self.key, partial(decode, Tally))
        if found is None or found.metric != metric or not 0 < found.n < total:
            return None
        try:
            hits = hits_from_hex(found.hits, found.n)
        except ValueError:
            return None
        whole = int(hits.sum()) == found.correct and len(found.predictions) == found.n
        return found if whole else None

    def remember(self, tally: Tally) -> None:
        """Store the tally of the samples scored so far."""
        self.store.remember(_KIND, self.key, encode(tally))

    def forget(self) -> None:
        """Remove the stored tally."""
        self.store.forget(_KIND, self.key)


@dataclass
class _Progress:
    """Tally of the samples scored so far, extended by each part."""

    unfinished: Unfinished | None
    tally: Tally | None
    total: int
    saved_at: float = field(default_factory=time.monotonic)
    is_saved: bool = True

    def receive(self, said: StageProgress) -> None:
        """Add the part of the tally in a progress report, if any."""
        if said.part is None:
            return
        begin, end = said.part.start, said.part.start + said.part.tally.n
        if begin != self.next_sample or end > self.total:
            raise DeviceError(
                f"invalid answer of the agent: results of samples {begin} to {end} instead of "
                f"{self.next_sample} to {self.total} at most"
            )
        self.add(said.part.tally)
        if time.monotonic() - self.saved_at >= _SAVE_EVERY_S:
            self.save()

    @property
    def next_sample(self) -> int:
        """Return the number of the next sample to score."""
        return self.tally.n if self.tally else 0

    def add(self, tally: Tally) -> None:
        """Append the tally of the next samples."""
        self.tally = join_tallies(self.tally, tally)
        self.is_saved = False

    def save(self) -> None:
        """Save the tally in the store, if it has changed."""
        if self.unfinished is None or self.tally is None or self.is_saved:
            return
        self.unfinished.remember(self.tally)
        self.saved_at, self.is_saved = time.monotonic(), True


def score(
    agent: Agent,
    model: ModelRef,
    samples: Samples,
    *,
    metric: str,
    output: str | None,
    tick: Tick,
    unfinished: Unfinished | None = None,
) -> Tally:
    """Count the correct predictions of a model on labeled samples.

    Args:
        agent: The agent that runs the model.
        model: The model, by its path on the agent's machine.
        samples: The samples, by their paths on the agent's machine.
        metric: Metric that decides which predictions are correct.
        output: The output to score; ``None`` = the first.
        tick: Progress callback.
        unfinished: Storage from which an earlier attempt is resumed, and to which this attempt is
            saved if it is interrupted.
    """
    total = (samples.label or samples.columns[0]).shape[0]
    known = unfinished.recall(metric, total) if unfinished else None
    progress = _Progress(unfinished=unfinished, tally=known, total=total)
    begun = progress.next_sample
    job = ScoreJob(model, samples, metric, output, start=begun)
    try:
        rest = agent.ask(job, Tally, progress=_make_listener(progress, tick))
    finally:
        progress.save()
    if unfinished:
        unfinished.forget()
    return join_tallies(known, rest)


def _make_listener(progress: _Progress, tick: Tick) -> Callable[[StageProgress], None]:
    def receive(said: StageProgress) -> None:
        progress.receive(said)
        tick(said.stage, said.done, said.total)

    return receive


def join_tallies(first: Tally | None, second: Tally) -> Tally:
    """Join the tallies of consecutive samples."""
    if first is None:
        return second
    parts = [hits_from_hex(each.hits, each.n) for each in (first, second)]
    return replace(
        first,
        n=first.n + second.n,
        correct=first.correct + second.correct,
        hits=hits_to_hex(np.concatenate(parts).tolist()),
        predictions=(*first.predictions, *second.predictions),
    )
