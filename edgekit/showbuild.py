"""Formatting of a build as text for a terminal and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgekit.bundle import Form, release_name
from edgekit.compare import Comparison
from edgekit.graphs.rewrite import QUANTISED_ALREADY
from edgekit.layers import layer_facts
from edgekit.pairs import Side, paired
from edgekit.pipeline import Outcome
from edgekit.profile import runtime_of
from edgekit.results import Candidate, Measurement, Rejected
from edgekit.tables import size, table

_ENCODED = {"packed": "when packed", "raw": "as sent"}


def built(outcome: Outcome) -> str:
    """Format a build: the candidates, each check of the verdict, and the path of the bundle."""
    found, intake = outcome.found, outcome.intake
    lines = [_candidates(outcome), *_forms(outcome)]
    # For a model that is already quantized, one note replaces a line for each recipe.
    lines += _not_made([r for r in found.rejected if not r.reason.startswith(QUANTISED_ALREADY)])
    shown = found.chosen or found.nearest
    if found.chosen:
        lines += ["", f"{intake.profile.name}: {shown.recipe.name} chosen"]
    else:
        lines += ["", f"{intake.profile.name}: nothing holds; nearest is {shown.recipe.name}"]
    if shown.verdict:
        strict = " (fails: --strict)" if shown.verdict.strict else ""
        lines += [
            f"  {check}{strict if check.outcome in ('unmeasured', 'unproven') else ''}"
            for check in shown.verdict.checks
        ]
        lines += [f"  {reason}" for reason in shown.verdict.reasons]
    lines += [f"note: {note}" for note in _all_notes(outcome)]
    if outcome.manifest:
        lines += ["", f"bundle: {intake.out.resolve()} (release {release_name(outcome.manifest)})"]
        lines += [f"  {_form(form)}" for form in outcome.manifest.forms]
        lines.append(f"  {_signed(outcome)}")
    return "\n".join(lines)


def _signed(outcome: Outcome) -> str:
    signer = outcome.intake.signer
    if signer is None:
        return "not signed: 'edgekit keys new' makes a key; devices that trust a key refuse it"
    return (
        f"signed with key {signer.key.name} ({signer.key.id}), valid for {signer.valid_days} days"
    )


def _not_made(rejected: Sequence[Rejected]) -> Iterator[str]:
    """Yield the recipes that made no candidate; recipes with the same reason share a line."""
    names: dict[tuple[str, str], list[str]] = {}
    for each in rejected:
        names.setdefault((each.reason, each.hint), []).append(each.recipe.name)
    for (reason, hint), alike in names.items():
        yield f"{', '.join(alike)}: not made: {reason}"
        if hint:
            yield f"  {hint}"


def _form(form: Form) -> str:
    """Format a storage variant: its size on disk and as sent, its memory and its speed."""
    parts = [
        f"{size(form.disk_bytes)} on disk",
        f"{size(form.transfer_bytes)} {_ENCODED[form.encoding]}",
    ]
    if form.source is not None and form.latency_p50_ms is not None:
        parts.append(
            f"{size(form.peak_rss_bytes)} of memory, p50 {form.latency_p50_ms:.3g} ms, "
            f"p95 {form.latency_p95_ms:.3g} ms ({form.source})"
        )
    return f"{form.name}{' (this bundle)' if form.chosen else ''}: {', '.join(parts)}"


def _all_notes(outcome: Outcome) -> list[str]:
    shown = outcome.found.chosen or outcome.found.nearest
    notes = [*outcome.notes, *shown.notes]
    for measured in shown.measurements:
        doubts = measured.times.doubts if measured.times else ()
        if doubts:
            notes.append(f"latency on {measured.source}: {', '.join(doubts)} (see the report)")
    return notes


def built_facts(outcome: Outcome) -> dict[str, object]:
    """Return a build as plain data; raw latencies stay in results.jsonl."""
    found, signer = outcome.found, outcome.intake.signer
    return {
        "device": outcome.intake.profile.name,
        "passes": found.chosen is not None,
        "chosen": found.chosen.recipe.name if found.chosen else None,
        "nearest": (found.chosen or found.nearest).recipe.name,
        "candidates": [_candidate_facts(outcome, c) for c in found.candidates],
        "rejected": {r.recipe.name: r.reason for r in found.rejected},
        "hints": {r.recipe.name: r.hint for r in found.rejected if r.hint},
        "notes": _all_notes(outcome),
        "release": release_name(outcome.manifest) if outcome.manifest else None,
        "bundle": outcome.intake.out.resolve() if outcome.manifest else None,
        "signed_by": signer.key.id if outcome.manifest and signer else None,
        "folder": outcome.intake.out.resolve(),
    }


def _candidate_facts(outcome: Outcome, candidate: Candidate) -> dict[str, object]:
    return {
        "name": candidate.recipe.name,
        "format": candidate.model.format,
        "runtime": runtime_of(candidate.model),
        "digest": candidate.model.digest,
        "measurements": [m.summary() for m in candidate.measurements],
        "comparison": outcome.compared[candidate.key],
        "verdict": candidate.verdict,
        "passes": bool(candidate.verdict and candidate.verdict.passes),
        "layers": layer_facts(candidate.layers),
        "notes": candidate.notes,
    }


def _candidates(outcome: Outcome) -> str:
    head = ["candidate", "file", "transfer", "right", "drop", "quiet p50 ms", "p95 ms", "peak RSS"]
    rows = [[*head, ""]]
    for candidate in outcome.found.candidates:
        for measured in candidate.measurements:
            compared = outcome.compared[candidate.key]
            rows.append(_candidate_row(outcome, candidate, measured, compared))
    return table(rows)


def _forms(outcome: Outcome) -> list[str]:
    """Format a table of the recipes with an ONNX and a TFLite candidate, if there are any."""
    pairs = paired(_side(outcome, c) for c in outcome.found.candidates)
    if not pairs:
        return []
    head = ["recipe", "onnxruntime ms", "drop", "litert ms", "drop", "time"]
    rows = [
        [
            pair.name,
            *(cell for side in (pair.onnx, pair.tflite) for cell in _side_cells(side)),
            f"{pair.ratio:.2f}x" if pair.ratio else "-",
        ]
        for pair in pairs
    ]
    return ["", table([head, *rows])]


def _side(outcome: Outcome, candidate: Candidate) -> Side:
    timed = [m.times for m in candidate.measurements if m.times]
    return Side(
        name=candidate.recipe.name,
        format=candidate.model.format,
        p50_ms=timed[-1].quiet_p50_ms if timed else None,
        drop_points=outcome.compared[candidate.key].drop_points,
    )


def _side_cells(side: Side) -> list[str]:
    drop = side.drop_points
    return [
        f"{side.p50_ms:.3g}" if side.p50_ms is not None else "-",
        f"{drop:+.2f}" if drop is not None else "-",
    ]


def _candidate_row(
    outcome: Outcome, candidate: Candidate, measured: Measurement, compared: Comparison
) -> list[str]:
    times, tally = measured.times, measured.tally
    mark = "chosen" if candidate is outcome.found.chosen else ""
    if candidate.verdict and not candidate.verdict.passes:
        mark = "fails"
    if candidate is outcome.found.baseline and outcome.intake.runtimes.obstacles:
        mark = "reference"
    return [
        f"{candidate.recipe.name} ({measured.source})",
        size(measured.model_bytes),
        size(measured.update_bytes),
        f"{tally.correct}/{tally.n}" if tally else "-",
        f"{compared.drop_points:+.2f}",
        f"{times.quiet_p50_ms:.3g}" if times else "-",
        f"{times.p95_ms:.3g}" if times else "-",
        size(measured.peak_rss_bytes),
        mark,
    ]
