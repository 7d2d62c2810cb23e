"""Formatting of a build as text for a terminal and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from edgekit.bundle.layer_report import encode_layers
from edgekit.bundle.manifest import StorageVariant, get_release_name
from edgekit.bundle.results import Candidate, Measurement, Rejection
from edgekit.bundle.runtime_pairs import PairSide, find_pairs
from edgekit.config.profile import get_runtime
from edgekit.metrics.comparison import Comparison
from edgekit.metrics.metric import Metric
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.build import BuildOutcome
from edgekit.pipeline.search.recipe_names import format_method
from edgekit.reporting.text_tables import format_size, format_table

# Number of classes and slices to list.
_WORST = 5
_ENCODED = {"packed": "to download (packed)", "raw": "to download"}


def format_build(outcome: BuildOutcome) -> str:
    """Format a build: the candidates, each check of the verdict, and the path of the bundle."""
    found, inputs = outcome.found, outcome.inputs
    lines = [_format_candidates(outcome), *_format_pairs(outcome)]
    # For a model that is already quantized, one note replaces a line for each recipe.
    lines += _iter_rejection_lines([r for r in found.rejected if not r.quantized])
    shown = found.shown_candidate
    if found.chosen:
        unmeasured = "" if inputs.scoring else "; accuracy: unmeasured"
        lines += ["", f"{inputs.profile.name}: {shown.recipe.name} chosen{unmeasured}"]
    else:
        lines += ["", f"{inputs.profile.name}: {_format_failure(outcome)}"]
    if shown.verdict:
        strict = " (fails: --strict)" if shown.verdict.strict else ""
        lines += [
            f"  {check}{strict if check.outcome in ('unmeasured', 'unproven') else ''}"
            for check in shown.verdict.checks
        ]
        lines += [f"  {reason}" for reason in shown.verdict.reasons]
    lines += _iter_detail_lines(outcome.compared[shown.key])
    lines += [f"note: {note}" for note in _list_notes(outcome)]
    if outcome.manifest:
        lines += [
            "",
            f"bundle: {inputs.out.resolve()} (release {get_release_name(outcome.manifest)})",
        ]
        lines += [f"  {_format_variant(variant)}" for variant in outcome.manifest.variants]
        lines.append(f"  {_format_signature(outcome)}")
    return "\n".join(lines)


def _iter_detail_lines(compared: Comparison | None) -> Iterator[str]:
    """Yield the classes and the slices with the largest losses."""
    if compared is None:
        return
    scale = 100 if compared.unit == "points" else 1
    # The largest loss comes first, and classes that gain come last.
    losing = takewhile(lambda c: c.before != c.after, compared.classes)
    worst = list(losing)[:_WORST]
    if worst:
        shown = (f"{c.label}: {scale * c.before:.2f} -> {scale * c.after:.2f}" for c in worst)
        what = f"{compared.metric} of the classes that changed, the largest loss first"
        yield f"  {what}: {', '.join(shown)}"
    found = [(name, each) for name, each in compared.slices.items() if each.drop is not None]
    for name, each in sorted(found, key=lambda item: -(item[1].drop or 0.0))[:_WORST]:
        between = f" [{each.interval[0]:.2f}, {each.interval[1]:.2f}]" if each.interval else ""
        yield f"  {name}: {each.n} samples, drop {each.drop:+.2f}{between}"


def _format_failure(outcome: BuildOutcome) -> str:
    """Format which checks no candidate passes, and which candidate is nearest to the limits."""
    found = outcome.found
    if outcome.inputs.scoring is None:
        return (
            "accuracy: unmeasured, as there are no evaluation samples; nearest is "
            f"{found.nearest.recipe.name} (--allow-unmeasured accepts it)"
        )
    failing = [
        {check.name for check in c.verdict.failing_checks} for c in found.candidates if c.verdict
    ]
    missed = sorted(set.intersection(*failing)) if failing else []
    plural = "s" if len(missed) > 1 else ""
    which = f"meets the limit{plural} {', '.join(missed)}" if missed else "passes every check"
    return f"no candidate {which}; nearest is {found.nearest.recipe.name}"


def _format_signature(outcome: BuildOutcome) -> str:
    signer = outcome.inputs.signer
    if signer is None:
        return "not signed; devices with a trusted key refuse it ('edgekit keys new' creates a key)"
    return (
        f"signed with key {signer.key.name} ({signer.key.id}), valid for {signer.valid_days} days"
    )


def _iter_rejection_lines(rejected: Sequence[Rejection]) -> Iterator[str]:
    """Yield the recipes that made no candidate; recipes with the same reason share a line."""
    names: dict[tuple[str, str], list[str]] = {}
    for each in rejected:
        names.setdefault((each.reason, each.hint), []).append(each.recipe.name)
    for (reason, hint), alike in names.items():
        yield f"{', '.join(alike)}: no candidate: {reason}"
        if hint:
            yield f"  {hint}"


def _format_variant(form: StorageVariant) -> str:
    """Format a storage variant: its size on disk and as sent, its memory and its speed."""
    parts = [
        f"{format_size(form.disk_bytes)} on disk",
        f"{format_size(form.transfer_bytes)} {_ENCODED[form.encoding]}",
    ]
    if form.source is not None and form.latency_p50_ms is not None:
        parts.append(
            f"{format_size(form.peak_rss_bytes)} of memory, p50 {form.latency_p50_ms:.3g} ms, "
            f"p95 {form.latency_p95_ms:.3g} ms ({form.source})"
        )
    return f"{form.name}{' (this bundle)' if form.chosen else ''}: {', '.join(parts)}"


def _list_notes(outcome: BuildOutcome) -> list[str]:
    shown = outcome.found.shown_candidate
    notes = [*outcome.notes, *shown.notes]
    for measured in shown.measurements:
        doubts = measured.times.doubts if measured.times else ()
        if doubts:
            notes.append(
                f"latency on {measured.source} may be unreliable: {', '.join(doubts)} (see the "
                "report)"
            )
    return notes


def encode_build(outcome: BuildOutcome) -> dict[str, object]:
    """Return a build as plain data; raw latencies stay in results.jsonl."""
    found, signer = outcome.found, outcome.inputs.signer
    return {
        "device": outcome.inputs.profile.name,
        "passes": found.chosen is not None,
        "chosen": found.chosen.recipe.name if found.chosen else None,
        "nearest": found.shown_candidate.recipe.name,
        "candidates": [_encode_candidate(outcome, c) for c in found.candidates],
        "rejected": {r.recipe.name: r.reason for r in found.rejected},
        "hints": {r.recipe.name: r.hint for r in found.rejected if r.hint},
        "notes": _list_notes(outcome),
        "release": get_release_name(outcome.manifest) if outcome.manifest else None,
        "bundle": outcome.inputs.out.resolve() if outcome.manifest else None,
        "signed_by": signer.key.id if outcome.manifest and signer else None,
        "folder": outcome.inputs.out.resolve(),
    }


def _encode_candidate(outcome: BuildOutcome, candidate: Candidate) -> dict[str, object]:
    return {
        "name": candidate.recipe.name,
        "format": candidate.model.format,
        "runtime": get_runtime(candidate.model),
        "digest": candidate.model.digest,
        "measurements": [m.summary() for m in candidate.measurements],
        "comparison": outcome.compared[candidate.key],
        "verdict": candidate.verdict,
        "passes": bool(candidate.verdict and candidate.verdict.passes),
        "layers": encode_layers(candidate.layers),
        "notes": candidate.notes,
    }


def _format_candidates(outcome: BuildOutcome) -> str:
    scoring = outcome.inputs.scoring
    metrics = [get_metric(name) for name in scoring.names] if scoring else []
    titles = [_get_heading(metric, alone=len(metrics) == 1) for metric in metrics]
    drops = [
        _get_drop_heading(c) if len(metrics) == 1 else f"{c.metric} {_get_drop_heading(c)}"
        for c in _iter_comparisons(outcome)
    ]
    head = ["candidate", "file", "download", *titles, *drops, "p50 ms", "p95 ms", "peak RSS"]
    rows = [[*head, ""]]
    for candidate in outcome.found.candidates:
        for measured in candidate.measurements:
            compared = outcome.compared[candidate.key]
            rows.append(_format_candidate(outcome, candidate, measured, compared))
    return format_table(rows)


def _iter_comparisons(outcome: BuildOutcome) -> tuple[Comparison, ...]:
    """Return the comparisons of the original with itself: one for each metric."""
    first = outcome.compared[outcome.found.baseline.key]
    return (first, *first.guards) if first else ()


def _get_heading(metric: Metric, *, alone: bool) -> str:
    return metric.title if alone or metric.name == metric.title else metric.name


def _get_drop_heading(compared: Comparison) -> str:
    return {"points": "drop", "%": "worse by %", "": "worse by"}[compared.unit]


def _format_scores(outcome: BuildOutcome, measured: Measurement) -> list[str]:
    """Format the value of each metric; a place that scored nothing has dashes."""
    count = len(outcome.inputs.scoring.names) if outcome.inputs.scoring else 0
    return [str(each) for each in measured.scores] or ["-"] * count


def _format_drops(compared: Comparison) -> list[str]:
    return [
        f"{each.drop:+.2f}" if each.unit else f"{each.drop:+.3g}"
        for each in (compared, *compared.guards)
    ]


def _format_pairs(outcome: BuildOutcome) -> list[str]:
    """Format a table of the recipes with an ONNX and a TFLite candidate, if there are any."""
    pairs = find_pairs(_make_side(outcome, c) for c in outcome.found.candidates)
    if not pairs:
        return []
    head = ["recipe", "onnxruntime ms", "drop", "litert ms", "drop", "time"]
    rows = [
        [
            pair.name,
            *(cell for side in (pair.onnx, pair.tflite) for cell in _format_side(side)),
            f"{pair.ratio:.2f}x" if pair.ratio else "-",
        ]
        for pair in pairs
    ]
    return ["", format_table([head, *rows])]


def _make_side(outcome: BuildOutcome, candidate: Candidate) -> PairSide:
    timed = [m.times for m in candidate.measurements if m.times]
    compared = outcome.compared[candidate.key]
    return PairSide(
        method=format_method(candidate.recipe.steps),
        format=candidate.model.format,
        p50_ms=timed[-1].quiet_p50_ms if timed else None,
        drop=compared.drop if compared else None,
    )


def _format_side(side: PairSide) -> list[str]:
    drop = side.drop
    return [
        f"{side.p50_ms:.3g}" if side.p50_ms is not None else "-",
        f"{drop:+.2f}" if drop is not None else "-",
    ]


def _format_candidate(
    outcome: BuildOutcome, candidate: Candidate, measured: Measurement, compared: Comparison | None
) -> list[str]:
    times = measured.times
    mark = "chosen" if candidate is outcome.found.chosen else ""
    if candidate.verdict and not candidate.verdict.passes:
        mark = "fails"
    if candidate is outcome.found.baseline and outcome.inputs.runtimes.obstacles:
        mark = "reference"
    return [
        f"{candidate.recipe.name} ({measured.source})",
        format_size(measured.model_bytes),
        format_size(measured.update_bytes),
        *(_format_scores(outcome, measured)),
        *(_format_drops(compared) if compared else ()),
        f"{times.quiet_p50_ms:.3g}" if times else "-",
        f"{times.p95_ms:.3g}" if times else "-",
        format_size(measured.peak_rss_bytes),
        mark,
    ]
