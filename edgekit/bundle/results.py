"""Results of a build: measurements, checks, verdicts and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.bundle.latency_stats import LatencySummary, summarize
from edgekit.bundle.layer_report import LayerCost
from edgekit.model import Model
from edgekit.recipe import Recipe
from edgekit_agent.worker_results import Latency, Report, Tally

MIB = 1 << 20

Outcome = Literal["holds", "fails", "unmeasured", "unproven", "meaningless"]
_OUTCOMES: dict[Outcome, str] = {"unmeasured": "not measured", "unproven": "not proven"}


@dataclass(frozen=True, kw_only=True)
class Score:
    """Value of a metric on all scored samples.

    Attributes:
        metric: Name of the metric.
        title: Its name in words.
        value: The value; a share is from 0 to 1.
        n: Number of scored samples.
        is_share: Whether it is a share, shown in percent.
        correct: Number of correct predictions, if the metric counts them.
    """

    metric: str
    title: str
    value: float
    n: int
    is_share: bool
    correct: int | None = None

    def __str__(self) -> str:
        counts = f" ({self.correct}/{self.n})" if self.correct is not None else ""
        return f"{100 * self.value:.2f} %{counts}" if self.is_share else f"{self.value:.4g}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measurement of one model in one place.

    Attributes:
        source: ``host`` or ``device:NAME``.
        tally: Statistics of every sample; ``None`` if it was not scored.
        scores: Values of the metrics, the gated one first.
        transfer_bytes: Size of the model file as it is sent.
        overhead_bytes: Size of the rest of an update: manifest, golden samples and commands.
        latency: Raw values, one record for each process that timed the model.
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
    scores: tuple[Score, ...] = ()

    @classmethod
    def from_reports(
        cls,
        source: str,
        model: Model,
        tally: Tally | None,
        reports: Sequence[Report],
        *,
        scores: tuple[Score, ...],
        transferred: int,
    ) -> Measurement:
        """Combine tally, sizes and timing reports of a model in one place into a record."""
        return cls(
            source=source,
            tally=tally,
            scores=scores,
            model_bytes=model.bytes,
            transfer_bytes=transferred,
            latency=tuple(r.latency for r in reports),
            peak_rss_bytes=max((r.peak_rss_bytes for r in reports), default=None),
            runtime=reports[0].runtime if reports else "",
            runtime_version=reports[0].runtime_version if reports else "",
        )

    @property
    def times(self) -> LatencySummary | None:
        """Return the summary of the raw latencies; ``None`` if nothing was timed."""
        return summarize(self.latency) if self.latency else None

    @property
    def update_bytes(self) -> int:
        """Return the bytes that an update sends to a device that has agent and runtime."""
        return self.transfer_bytes + self.overhead_bytes

    def summary(self) -> dict[str, object]:
        """Return the figures without raw values."""
        return {
            "source": self.source,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "model_bytes": self.model_bytes,
            "transfer_bytes": self.transfer_bytes,
            "overhead_bytes": self.overhead_bytes,
            "n": self.scores[0].n if self.scores else None,
            "correct": self.scores[0].correct if self.scores else None,
            "scores": {score.metric: score.value for score in self.scores},
            "latency": self.times,
            "peak_rss_bytes": self.peak_rss_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class Check:
    """Comparison of a value with a limit, in the unit at the end of ``name``.

    ``metric`` names the metric whose loss is checked; it is empty for sizes, memory and latency.
    """

    name: str
    limit: float
    measured: float | None
    outcome: Outcome
    note: str = ""
    metric: str = ""

    def __str__(self) -> str:
        words = _OUTCOMES.get(self.outcome, self.outcome)
        if self.measured is None:
            return f"{self.name}: {words} (limit {self.limit:g}){self._format_note()}"
        figures = f"{self.measured:.4g} of {self.limit:g}, {self.margin}"
        return f"{self.name}: {words}, {figures}{self._format_note()}"

    @property
    def margin(self) -> str:
        """Return the distance to the limit in words; empty if nothing was measured."""
        if self.measured is None:
            return ""
        by = abs(self.measured - self.limit)
        return f"over by {by:.3g}" if self.measured > self.limit else f"{by:.3g} below the limit"

    def _format_note(self) -> str:
        return f"; {self.note}" if self.note else ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict of the gate on a candidate; it passes without failing checks and further reasons.

    Attributes:
        checks: One check for each limit.
        reasons: Further reasons against the candidate.
        strict: Whether every check that does not hold fails, even if unmeasured or unproven.
        needs_accuracy: Whether a check of accuracy fails if it is unmeasured.
    """

    checks: tuple[Check, ...]
    reasons: tuple[str, ...] = ()
    strict: bool = False
    needs_accuracy: bool = False

    @property
    def passes(self) -> bool:
        """Return whether the candidate passes."""
        return not self.reasons and not self.failing_checks

    @property
    def failing_checks(self) -> tuple[Check, ...]:
        """Return the checks that fail."""
        return tuple(
            c
            for c in self.checks
            if c.outcome in ("fails", "meaningless")
            or (self.strict and c.outcome != "holds")
            or (self.needs_accuracy and c.metric and c.outcome == "unmeasured")
        )

    @property
    def is_meaningless(self) -> bool:
        """Return whether the value of a metric says nothing, so that no candidate can be judged."""
        return any(check.outcome == "meaningless" for check in self.checks)

    @property
    def shortfall(self) -> tuple[int, int, float]:
        """Return a sort key of the distance from passing; the smallest is the nearest.

        It consists of the number of reasons, the number of failing checks, and the sum of their
        values relative to the limits.
        """
        excess = sum((c.measured or 0.0) / max(c.limit, 1e-9) for c in self.failing_checks)
        return len(self.reasons), len(self.failing_checks), excess


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that a recipe made, with its measurements.

    ``measurements`` begins with that of the host. ``troubles`` are the reasons why a device could
    not run the model. ``layers`` is the cost of each layer as recorded by a pass, or empty.
    ``notes`` are remarks of the passes for the user. ``golden`` is the file of golden samples,
    ``None`` if the model cannot be sent, and ``golden_note`` a remark on them.
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
    golden_note: str = ""

    @property
    def tally(self) -> Tally | None:
        """Return the statistics of the samples, of a device if there are any."""
        return next((m.tally for m in reversed(self.measurements) if m.tally), None)

    def get_measurement(self, source: str) -> Measurement | None:
        """Return the measurement of a source (``host`` or ``device:NAME``)."""
        return next((m for m in self.measurements if m.source == source), None)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A recipe that made no candidate, with the reason.

    Attributes:
        recipe: The recipe.
        reason: The reason in one line.
        broken: Whether edgekit or a runtime is at fault, so that it is not a refusal.
        hint: How to resolve it, in one line; empty if there is nothing to add.
        least_bytes: Smallest transfer size that the recipe can reach, if it asked for less.
        quantized: Whether the reason is that the model is quantized already.
    """

    recipe: Recipe
    reason: str
    broken: bool = False
    hint: str = ""
    least_bytes: int | None = None
    quantized: bool = False


@dataclass(frozen=True, kw_only=True)
class Build:
    """Results of a build: the original, every candidate, and the chosen one."""

    baseline: Candidate
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    chosen: Candidate | None
    nearest: Candidate

    @property
    def shown_candidate(self) -> Candidate:
        """Return the chosen candidate, else the nearest one, whose figures are shown."""
        return self.chosen or self.nearest
