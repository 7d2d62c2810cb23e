"""Accuracy of a model, here or on a device; an interrupted scoring goes on from where it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from edgekit.errors import DeviceError
from edgekit.evaluate import Agent
from edgekit.progress import Tick
from edgekit.store import Store
from edgekit_agent.accuracy import hits_from_hex, hits_to_hex
from edgekit_agent.codec import decode, encode
from edgekit_agent.jobs import ModelRef, ScoreJob
from edgekit_agent.results import Tally, TallyPart
from edgekit_agent.samples import Samples

_KIND = "unfinished-tallies"
# What is lost where even the last words of this process are.
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Where a scoring that is interrupted is kept. ``key`` decides its answer."""

    store: Store
    key: str

    def recall(self, metric: str, total: int) -> Tally | None:
        """The first samples' tally; ``None`` where there is none that fits."""
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
        """Keep what was scored so far."""
        self.store.remember(_KIND, self.key, encode(tally))

    def forget(self) -> None:
        """Drop it; the whole is known."""
        self.store.forget(_KIND, self.key)


@dataclass
class _SoFar:
    """The tally of the first samples, as its parts come in."""

    unfinished: Unfinished | None
    tally: Tally | None
    saved_at: float = field(default_factory=time.monotonic)
    is_saved: bool = True

    def hear(self, said: dict[str, Any]) -> None:
        """Take in the part that comes with a progress line, if one does."""
        if "part" not in said:
            return
        try:
            part = decode(TallyPart, said["part"])
            if part.start != self.reached:
                raise ValueError(f"a tally from sample {part.start} on, {self.reached} was next")
            self.add(part.tally)
        except ValueError as error:
            raise DeviceError(f"the agent's answer is wrong: {error}") from error
        if time.monotonic() - self.saved_at >= _SAVE_EVERY_S:
            self.save()

    @property
    def reached(self) -> int:
        """Number of the next sample."""
        return self.tally.n if self.tally else 0

    def add(self, tally: Tally) -> None:
        """Take in the samples that come next."""
        self.tally = joined(self.tally, tally)
        self.is_saved = False

    def save(self) -> None:
        """Keep it in the store."""
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
    """Count how often a model is right on labelled samples.

    Args:
        agent: who runs it.
        model: the model as the agent finds it.
        samples: as the agent finds them.
        metric: what counts as right.
        output: the output that is scored; ``None`` = the first.
        tick: told how far it is.
        unfinished: where an earlier attempt may have been kept, and this one is, should it be
            interrupted.
    """
    total = (samples.label or samples.columns[0]).shape[0]
    known = unfinished.recall(metric, total) if unfinished else None
    so_far = _SoFar(unfinished=unfinished, tally=known)
    begun = so_far.reached
    job = ScoreJob(model, samples, metric, output, start=begun)
    try:
        rest = agent.ask(job, Tally, progress=_heard(so_far, tick))
    finally:
        so_far.save()
    if unfinished:
        unfinished.forget()
    return joined(known, rest)


def _heard(so_far: _SoFar, tick: Tick) -> Callable[[dict[str, Any]], None]:
    def hear(said: dict[str, Any]) -> None:
        so_far.hear(said)
        tick(said["stage"], said["done"], said["total"])

    return hear


def joined(first: Tally | None, second: Tally) -> Tally:
    """The tally of samples and of those that come after them."""
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
