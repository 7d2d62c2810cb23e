"""Choice of metrics, margins and post-processing from the request, edgekit.toml and the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgekit.config.profile import Budget
from edgekit.config.project import GateTable, Project
from edgekit.errors import UserError
from edgekit.metrics.metric import Margin, Metric
from edgekit.metrics.registry import get_metric
from edgekit.model import Signature
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit_agent.scoring import MetricJob


def choose_default_metric(signature: Signature, output: str | None) -> str:
    """Return ``binary`` if an output holds a single value per sample, else ``top1``."""
    spec = next((o for o in signature.outputs if o.name == output), signature.outputs[0])
    sizes = [d for d in spec.shape[1:] if isinstance(d, int)]
    single = len(sizes) == len(spec.shape) - 1 and all(d == 1 for d in sizes)
    return "binary" if single else "top1"


def choose_scoring(
    project: Project, signature: Signature, *, folder: Path, metric: str | None = None
) -> Scoring:
    """Choose the metrics and the post-processing.

    Args:
        project: Settings of edgekit.toml.
        signature: Inputs and outputs of the model.
        folder: Base of paths in edgekit.toml.
        metric: Metric of the request, instead of that of edgekit.toml.

    Raises:
        UserError: A metric is unknown, or the character set cannot be read.
    """
    data, table = project.data, project.postprocess
    name = metric or data.metric or choose_default_metric(signature, data.output)
    if name in project.gate.guards:
        raise UserError(
            f"edgekit.toml: gate.guards: {name} is the metric of the gate itself",
            hint="set its limit with [gate] max_drop",
        )
    options = data.metric_options.to_options(data.output)
    check_names(project, metric, folder)
    names = (name, *project.gate.guards)
    metrics = [get_metric(each, folder) for each in names]
    for code in (each.code for each in metrics if each.code):
        if data.metric_on_device:
            code.read_files()  # fail before anything is built
    jobs = tuple(MetricJob(each.name, options) for each in metrics)
    size = _find_image_size(signature)
    return Scoring(metrics=jobs, postprocess=table.to_postprocess(folder, size) if table else None)


def choose_margins(
    scoring: Scoring, asked: float | None, gate: GateTable, budget: Budget
) -> tuple[Margin, ...]:
    """Return the largest loss of each metric: of the request, the project, the device or default.

    Args:
        scoring: The metrics.
        asked: Margin of the request for the gated metric, in its unit.
        gate: Settings of edgekit.toml.
        budget: Budget of the device.
    """
    gated = get_metric(scoring.names[0])
    # The limit of the device is one of accuracy; a metric of another scale keeps its own.
    points = (
        budget.accuracy_drop_points
        if gated.is_share and gated.margin == Margin(value=1.0)
        else None
    )
    wanted = (
        asked,
        gate.max_drop,
        gate.max_drop_points if gated.is_share else None,
        budget.max_drop.get(gated.name),
        points,
    )
    guards = (
        _replace_value(get_metric(name), (gate.guards.get(name), budget.max_drop.get(name)))
        for name in scoring.names[1:]
    )
    return (_replace_value(gated, wanted), *guards)


def check_names(project: Project, asked: str | None, folder: Path) -> None:
    """Check the metrics that edgekit.toml names; a metric of the request replaces the first.

    Raises:
        UserError: There is no such metric; names the setting.
    """
    first = [("data.metric", project.data.metric)] if asked is None else []
    guards = [(f"gate.guards.{name}", name) for name in project.gate.guards]
    for setting, name in (*first, *guards):
        try:
            if name is not None:
                get_metric(name, folder)
        except UserError as error:
            raise UserError(f"edgekit.toml: {setting}: {error.message}", hint=error.hint) from error


def _replace_value(metric: Metric, values: Iterable[float | None]) -> Margin:
    """Return the margin of a metric with the first value that is set."""
    value = next((v for v in values if v is not None), metric.margin.value)
    return replace(metric.margin, value=value)


def _find_image_size(signature: Signature) -> tuple[int, ...]:
    """Return height and width of the only image input; empty if there is none or it is free."""
    shapes = [spec.shape for spec in signature.inputs if len(spec.shape) == 4]
    if len(shapes) != 1:
        return ()
    shape = shapes[0]
    sizes = shape[2:] if shape[1] in (1, 3, 4) else shape[1:3]
    return tuple(size for size in sizes if isinstance(size, int)) if len(sizes) == 2 else ()
