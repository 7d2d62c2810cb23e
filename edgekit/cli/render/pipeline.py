"""Formatting of the build of a [pipeline] as text for a terminal and as plain data."""

from __future__ import annotations

from edgekit.cli.render.build import encode_build, format_build
from edgekit.pipeline.combination.build import PipelineOutcome
from edgekit.pipeline.combination.build import encode_pipeline as encode_totals


def format_pipeline(outcome: PipelineOutcome) -> str:
    """Format the builds of all models, then the checks of all together."""
    lines: list[str] = []
    for name, each in outcome.models.items():
        part = each.inputs.part
        unit = "run" if part and part.calls == 1 else "runs"
        runs = f", {part.calls:.3g} {unit} per sample" if part else ""
        lines += [f"model {name} of {outcome.run}{runs}", "", format_build(each), "", ""]
    lines.append(f"{outcome.run}: {_format_result(outcome)}")
    compared = outcome.comparison
    if compared:
        scale = 100 if compared.unit == "points" else 1
        lines.append(
            f"  {compared.metric}: {scale * compared.before:.4g} -> {scale * compared.after:.4g} "
            f"with all models compressed"
        )
    lines += [f"  {check}" for check in outcome.checks]
    lines += [f"note: {note}" for note in outcome.notes]
    return "\n".join(lines)


def _format_result(outcome: PipelineOutcome) -> str:
    """Format the chosen candidate of each model."""
    parts = [
        f"{name} {each.choice.recipe.name if each.choice else 'nothing passes'}"
        for name, each in outcome.models.items()
    ]
    stopped = "" if outcome.complete else "; the other models were not built"
    return f"{', '.join(parts)}{stopped}"


def encode_pipeline(outcome: PipelineOutcome) -> dict[str, object]:
    """Return the builds of all models and the result of all together as plain data."""
    return {
        **encode_totals(outcome),
        "builds": {name: encode_build(each) for name, each in outcome.models.items()},
    }
