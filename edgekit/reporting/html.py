"""HTML report of a build: one page with the verdict, every candidate and all provenance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgekit.bundle.latency_stats import LatencySummary
from edgekit.bundle.layer_report import LayerCost
from edgekit.bundle.manifest import REPORT, Manifest
from edgekit.bundle.results import MIB, Measurement, Score
from edgekit.bundle.runtime_pairs import FormatPair, PairSide, find_pairs
from edgekit.errors import UserError
from edgekit.pipeline.results_log import BuildFacts, CandidateLine, read_facts
from edgekit.reporting import plots
from edgekit.reporting.figures import (
    LABELS,
    compute_used_percent,
    format_figure,
    format_label,
    format_place,
    format_size,
    format_value,
    get_unit,
)
from edgekit_agent.files import write_atomic


def write_report(build_dir: Path, *, with_samples: bool = False) -> Path:
    """Write the report of the last build in a folder, and return its path.

    Args:
        build_dir: The folder.
        with_samples: Draw changed samples, if the build drew any.

    Raises:
        UserError: The folder holds no build, or its files are damaged.
    """
    path = build_dir / REPORT
    facts = read_facts(build_dir)
    if not with_samples and facts.examples:
        facts = replace(facts, examples=facts.examples.without_samples())
    write_atomic(str(path), render(facts).encode("utf-8"))
    return path


def check_has_samples(build_dir: Path) -> None:
    """Check that the last build in a folder drew the samples that changed, if there are any.

    Raises:
        UserError: It only listed them; or the folder holds no build.
    """
    found = read_facts(build_dir).examples
    if found and found.examples and not found.has_samples:
        raise UserError(
            f"{build_dir}: the build drew no samples",
            hint="build again with --with-samples, or examples = true in [build]",
        )


# ---------------------------------------------------------------- content of the page


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate with the values that the page shows."""

    letter: str
    line: CandidateLine

    @property
    def title(self) -> str:
        """Return letter and name."""
        return f"{self.letter}  {self.line.name}"

    @property
    def role(self) -> plots.Role:
        """Return the role that decides the style of its marks."""
        if self.line.chosen:
            return "chosen"
        if self.line.baseline:
            return "baseline"
        return "passes" if self.line.verdict and self.line.verdict.passes else "fails"

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Return the measurements, those of devices first."""
        return tuple(sorted(self.line.measurements, key=lambda m: m.source == "host"))

    @property
    def timings(self) -> list[tuple[str, LatencySummary]]:
        """Return the places where it was timed, each with a summary of the latencies."""
        return [(m.source, times) for m in self.measurements if (times := _get_times(m))]

    @property
    def scores(self) -> tuple[Score, ...]:
        """Return the values of the metrics, of a device if there is one."""
        return next((m.scores for m in self.measurements if m.scores), ())

    @property
    def peaks(self) -> list[tuple[str, int]]:
        """Return the peak memory by source."""
        return [
            (m.source, m.peak_rss_bytes) for m in self.measurements if m.peak_rss_bytes is not None
        ]

    @property
    def transfer_bytes(self) -> int | None:
        """Return the bytes that an update to this candidate sends to a device."""
        return next((m.update_bytes for m in self.measurements), None)

    @property
    def drop(self) -> plots.Span | None:
        """Return the accuracy drop against the original; zero for the original itself."""
        if self.line.comparison is not None:
            low, high = self.line.comparison.interval
            return plots.Span(middle=self.line.comparison.drop, low=low, high=high)
        return plots.Span(middle=0.0, low=0.0, high=0.0) if self.line.baseline else None

    def times(self, source: str) -> LatencySummary | None:
        """Return the latency summary of a source."""
        return dict(self.timings).get(source)

    def values(self, source: str) -> tuple[float, ...]:
        """Return the raw latencies of a source."""
        records = [r for m in self.measurements if m.source == source for r in m.latency]
        return tuple(v for r in records for v in r.values_ms)


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A layer with its cost and its shares of the whole in percent."""

    cost: LayerCost
    divergence: float
    bytes: float


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Title of the gated metric, name of its loss, and the unit of the loss."""

    title: str
    name: str
    unit: str

    @property
    def heading(self) -> str:
        """Return the name with its unit."""
        name = self.name[:1].upper() + self.name[1:]
        return f"{name}, {self.unit}" if self.unit else name


def _get_times(measurement: Measurement) -> LatencySummary | None:
    return measurement.times if any(r.values_ms for r in measurement.latency) else None


def render(facts: BuildFacts) -> str:
    """Render the page, which needs no script and no network."""
    ordered = sorted(facts.candidates, key=lambda c: (not c.baseline, not c.chosen))
    rows = tuple(Row(letter=_get_letter(i), line=line) for i, line in enumerate(ordered))
    source = _choose_timing_source(rows)
    judged = _find_judged_row(rows)
    layers = _build_layer_rows(judged)
    limits = _collect_limits(rows, facts.manifest)
    if source == "host":
        # The limit is for the device and does not apply to latencies of this machine.
        limits["latency_p95_ms"] = None
    return (
        _build_environment()
        .get_template("report.html")
        .render(
            facts=facts,
            rows=rows,
            loss=_describe_loss(rows),
            pairs=_find_pairs(rows),
            judged=judged,
            headline=_choose_headline(judged),
            source=source,
            limits=limits,
            scatter=_build_scatter(rows, source, limits),
            bars=_build_bars(rows, limits),
            strips=_build_strips(rows, source, limits),
            layers=layers,
            layer_bars=_build_layer_bars(layers),
        )
    )


def _build_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("edgekit.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=format_figure,
        value=format_value,
        size=format_size,
        label=format_label,
        unit=get_unit,
        place=format_place,
        used=compute_used_percent,
    )
    return environment


def _get_letter(index: int) -> str:
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def _choose_timing_source(rows: tuple[Row, ...]) -> str | None:
    """Choose a device before the host, and among devices the one with the most timed candidates."""
    counts: dict[str, int] = {}
    for source in (s for row in rows for s, _ in row.timings):
        counts[source] = counts.get(source, 0) + 1
    return max(counts, key=lambda s: (s != "host", counts[s]), default=None)


def _find_judged_row(rows: tuple[Row, ...]) -> Row | None:
    """Find the candidate that the build chose, else the nearest one.

    Results of older versions of edgekit do not state the nearest; the verdicts decide there.
    """
    judged = [(r, r.line.verdict) for r in rows if r.line.verdict is not None]
    return min(
        judged,
        key=lambda pair: (
            not pair[0].line.chosen,
            not pair[0].line.nearest,
            pair[1].shortfall,
        ),
        default=(None, None),
    )[0]


def _find_pairs(rows: tuple[Row, ...]) -> tuple[FormatPair, ...]:
    """Find the recipes with a candidate for both runtimes."""
    return find_pairs(
        PairSide(
            method=row.line.method,
            format=row.line.model.format,
            p50_ms=row.timings[0][1].quiet_p50_ms if row.timings else None,
            drop=row.drop.middle if row.drop else None,
        )
        for row in rows
        if row.line.method
    )


def _choose_headline(judged: Row | None) -> tuple[Literal["holds", "open", "fails"], str]:
    if judged is None or judged.line.verdict is None:
        return "open", "Not judged"
    verdict = judged.line.verdict
    if not judged.line.chosen:
        return "fails", "No candidate passes"
    if not verdict.passes:
        return "fails", "Does not pass"
    counts = {
        "not measured": sum(c.outcome == "unmeasured" for c in verdict.checks),
        "not proven": sum(c.outcome == "unproven" for c in verdict.checks),
    }
    still_open = [f"{count} {what}" for what, count in counts.items() if count]
    if still_open:
        return "open", f"No check fails; of {len(verdict.checks)} checks {', '.join(still_open)}"
    return "holds", "Passes; every check holds"


def _collect_limits(rows: tuple[Row, ...], manifest: Manifest | None) -> dict[str, float | None]:
    """Collect the limits of the verdicts; limits that no verdict has are those of the profile."""
    budget = manifest.profile.budget.model_dump() if manifest is not None else {}
    limits: dict[str, float | None] = {name: budget.get(name) for name in LABELS}
    for row in rows:
        for check in row.line.verdict.checks if row.line.verdict else ():
            limits[check.name] = check.limit
    return limits


def _build_scatter(
    rows: tuple[Row, ...], source: str | None, limits: dict[str, float | None]
) -> plots.Scatter | None:
    dots = []
    for row in rows:
        times, drop = row.times(source) if source else None, row.drop
        if times is not None and drop is not None:
            # Candidates are chosen by this value.
            quiet = times.quiet_p50_ms
            x = plots.Span(middle=quiet, low=quiet, high=quiet)
            dots.append(plots.Dot(letter=row.letter, title=row.title, role=row.role, x=x, y=drop))
    return plots.build_scatter(dots, y_limit=_find_loss_limit(rows))


def _find_loss_limit(rows: tuple[Row, ...]) -> float | None:
    """Return the largest loss of the gated metric that was allowed."""
    checks = (c for row in rows if row.line.verdict for c in row.line.verdict.checks)
    found = [c.limit for c in checks if c.metric or c.name == "accuracy_drop_points"]
    return found[0] if found else None


def _describe_loss(rows: tuple[Row, ...]) -> Loss:
    """Return the names of the gated metric and of its loss."""
    compared = next((row.line.comparison for row in rows if row.line.comparison), None)
    score = next((row.scores[0] for row in rows if row.scores), None)
    if compared is None or score is None:
        return Loss(title="Accuracy", name="accuracy drop", unit="points")
    name = "accuracy drop" if score.title == "accuracy" else f"loss of {score.title}"
    return Loss(title=score.title[:1].upper() + score.title[1:], name=name, unit=compared.unit)


def _build_bars(rows: tuple[Row, ...], limits: dict[str, float | None]) -> plots.Bars | None:
    largest = max((max(row.line.model.bytes, row.transfer_bytes or 0) for row in rows), default=0)
    unit, size = ("MiB", MIB) if largest >= MIB else ("KiB", 1024)
    return plots.build_bars(
        [
            plots.Bar(
                letter=row.letter,
                title=row.title,
                role=row.role,
                model=row.line.model.bytes / size,
                transfer=None if row.transfer_bytes is None else row.transfer_bytes / size,
            )
            for row in rows
        ],
        unit=unit,
        model_limit=_scale(limits["model_mib"], MIB / size),
        transfer_limit=_scale(limits["transfer_mib"], MIB / size),
    )


def _scale(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _build_strips(
    rows: tuple[Row, ...], source: str | None, limits: dict[str, float | None]
) -> plots.Strips | None:
    strips = [
        plots.Strip(
            letter=row.letter,
            title=row.title,
            role=row.role,
            values=row.values(source),
            p50=times.p50_ms,
            p95=times.p95_ms,
        )
        for row in rows
        if source and (times := row.times(source))
    ]
    return plots.build_strips(strips, limit=limits["latency_p95_ms"])


def _build_layer_rows(judged: Row | None) -> tuple[LayerRow, ...]:
    """Build the rows of the layers of the judged candidate, the highest cost first."""
    costs = judged.line.layers if judged else ()
    divergence = sum(max(c.kl, 0.0) for c in costs)
    weight = sum(c.bytes for c in costs)
    rows = (
        LayerRow(
            cost=c,
            divergence=100 * max(c.kl, 0.0) / divergence if divergence else 0.0,
            bytes=100 * c.bytes / weight if weight else 0.0,
        )
        for c in costs
    )
    return tuple(sorted(rows, key=lambda r: (-r.divergence, -r.bytes)))


def _build_layer_bars(rows: tuple[LayerRow, ...]) -> plots.LayerBars | None:
    return plots.build_layer_bars(
        [plots.LayerBar(name=r.cost.layer, divergence=r.divergence, bytes=r.bytes) for r in rows]
    )
