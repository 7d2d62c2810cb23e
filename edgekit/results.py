"""What a build finds out: measurements, checks, verdicts, candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.latency import LatencySummary, summarise
from edgekit.layers import LayerCost
from edgekit.model import Model
from edgekit.recipe import Recipe
from edgekit_agent.results import Latency, Tally

MIB = 1 << 20

Outcome = Literal["holds", "fails", "unmeasured", "unproven"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of one model in one place.

    Attributes:
        source: ``host`` or ``device:NAME``.
        transfer_bytes: the model's file as it is sent.
        overhead_bytes: what is sent with it: manifest, golden samples and commands.
        latency: one record of raw values for each process the model was timed in.
    """

    source: str
    tally: Tally | None
    model_bytes: int
    transfer_bytes: int
    overhead_bytes: int = 0
    latency: tuple[Latency, ...] = ()
    peak_rss_bytes: int | None = None
    runtime: str = ""
    runtime_version: str = ""

    @property
    def times(self) -> LatencySummary | None:
        """The summary of the raw latencies; ``None`` where nothing was timed."""
        return summarise(self.latency) if self.latency else None

    @property
    def update_bytes(self) -> int:
        """All that an update sends to a device that has agent and runtime."""
        return self.transfer_bytes + self.overhead_bytes

    def summary(self) -> dict[str, object]:
        """The figures without the raw values they come from."""
        return {
            "source": self.source,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "model_bytes": self.model_bytes,
            "transfer_bytes": self.transfer_bytes,
            "overhead_bytes": self.overhead_bytes,
            "n": self.tally.n if self.tally else None,
            "correct": self.tally.correct if self.tally else None,
            "latency": self.times,
            "peak_rss_bytes": self.peak_rss_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a verdict: a limit against a figure, in the unit that ``name`` ends with."""

    name: str
    limit: float
    measured: float | None
    outcome: Outcome
    note: str = ""

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.name}: unmeasured (limit {self.limit:g}){self._tail()}"
        figures = f"{self.measured:.4g} of {self.limit:g}, {self.margin}"
        return f"{self.name}: {self.outcome}, {figures}{self._tail()}"

    @property
    def margin(self) -> str:
        """How far the figure is from the limit, in words; empty where nothing was measured."""
        if self.measured is None:
            return ""
        by = abs(self.measured - self.limit)
        return f"over by {by:.3g}" if self.measured > self.limit else f"{by:.3g} to spare"

    def _tail(self) -> str:
        return f"; {self.note}" if self.note else ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of a candidate. It passes when no check fails.

    Attributes:
        checks: a line for each limit.
        reasons: what forbids the candidate beside the figures.
        strict: whether a check that does not hold fails, measured or not.
    """

    checks: tuple[Check, ...]
    reasons: tuple[str, ...] = ()
    strict: bool = False

    @property
    def passes(self) -> bool:
        """Whether nothing speaks against the candidate."""
        return not self.reasons and not self.failing

    @property
    def failing(self) -> tuple[Check, ...]:
        """The checks that fail."""
        return tuple(
            c for c in self.checks if c.outcome == "fails" or (self.strict and c.outcome != "holds")
        )

    @property
    def shortfall(self) -> tuple[int, int, float]:
        """How far a candidate is from passing; the smallest is the nearest.

        The number of reasons, that of failing checks, and how many times over their limits these
        are in sum.
        """
        excess = sum((c.measured or 0.0) / max(c.limit, 1e-9) for c in self.failing)
        return len(self.reasons), len(self.failing), excess


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that a recipe made, with what was measured of it.

    ``measurements`` has the host's first; ``troubles`` says why a device could not run it;
    ``layers`` is what a pass said of the cost of each layer, empty where none did; ``notes`` are
    facts that the passes of the recipe tell the user; ``golden`` is the file of golden samples,
    ``None`` where the model cannot be sent.
    """

    key: str
    recipe: Recipe
    model: Model
    measurements: tuple[Measurement, ...] = ()
    verdict: Verdict | None = None
    troubles: tuple[str, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    notes: tuple[str, ...] = ()
    golden: Path | None = None

    def measured(self, source: str) -> Measurement | None:
        """The measurement of that source (``host`` or ``device:NAME``)."""
        return next((m for m in self.measurements if m.source == source), None)


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A recipe that made no candidate, and why.

    Attributes:
        recipe: the recipe.
        reason: why, in one line.
        broken: whether that is a fault of edgekit or of a runtime, not a refusal.
        hint: what to do about it, in one line; empty where there is nothing to add.
        least_bytes: smallest transfer size that the recipe can reach, where it asked for less.
    """

    recipe: Recipe
    reason: str
    broken: bool = False
    hint: str = ""
    least_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Build:
    """What ``build`` found: the original, every candidate, and the one that was chosen."""

    baseline: Candidate
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    chosen: Candidate | None
    nearest: Candidate
