"""Command ``build``: of one model, or of all models of a [pipeline]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgekit
from edgekit.cli.completion import complete_pass
from edgekit.cli.options import (
    Data,
    DeviceName,
    Dims,
    Evaluation,
    Folder,
    Json,
    Metric,
    Seed,
    TrustPickle,
    parse_dims,
)
from edgekit.cli.render.output import announce_sent, emit, note_old_names, say, show_progress
from edgekit.errors import ExitCode


def build(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Default: [model] path of edgekit.toml.")
    ] = None,
    device: DeviceName = None,
    folder: Folder = Path(),
    data: Data = None,
    evaluation: Evaluation = None,
    metric: Metric = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", metavar="NAME", help="onnxruntime, litert or auto (both)."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="LOSS",
            min=0,
            help="Largest loss of accuracy: points, or percent for errors.",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort",
            metavar="NAME",
            help="How long inaccurate candidates may learn: quick, standard (10 min) or thorough "
            "(60).",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            metavar="N",
            min=0,
            max=1440,
            help="Minutes of learning together.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Run this recipe (TOML) only; no search."),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            metavar="NAME[:KEY=VALUE,...]",
            help="Run these passes in this order; no search. 'edgekit passes' lists them.",
            autocompletion=complete_pass,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="HOST",
            help="Measure candidates on this device; 'web': in headless Chromium.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Output folder; default: build/NAME."),
    ] = None,
    seed: Seed = None,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    allow_failing: Annotated[
        bool, typer.Option("--allow-failing", help="Pack the nearest candidate if none passes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Treat unmeasured and unproven checks as failed.")
    ] = False,
    allow_unmeasured: Annotated[
        bool,
        typer.Option("--allow-unmeasured", help="Accept a candidate without evaluation samples."),
    ] = False,
    with_samples: Annotated[
        bool,
        typer.Option("--with-samples", help="Draw changed samples (your data) in the report."),
    ] = False,
    as_json: Json = False,
) -> int:
    """Compress a model for a device and verify its accuracy.

    Writes the bundle and the report to build/NAME/. With a [pipeline] in edgekit.toml, all its
    models are built in turn, each in build/NAME/MODEL/.
    """
    from edgekit.api.passes import choose_recipe

    sizes = parse_dims(dims)
    with note_old_names() as old_names:
        chosen = choose_recipe(recipe, step or (), folder=folder, old_names=old_names)
    options: dict[str, Any] = {
        "device": device,
        "data": data,
        "eval": evaluation,
        "metric": metric,
        "runtime": runtime,
        "max_drop": max_drop,
        "effort": effort,
        "minutes": minutes,
        "recipe": chosen,
        "on": on,
        "out": out,
        "seed": seed,
        "trust_pickle": trust_pickle,
        "allow_failing": allow_failing,
        "strict": strict,
        "with_samples": with_samples,
        "folder": folder,
    }
    project = edgekit.Project.load(folder)
    if on is not None:
        announce_sent(_describe_measured(project), [on])
    if model is None and project.pipeline:
        _refuse_single_options(sizes=bool(sizes), allow_unmeasured=allow_unmeasured)
        return _build_pipeline(options, as_json=as_json)
    return _build_model(
        model,
        {**options, "dims": sizes, "allow_unmeasured": allow_unmeasured},
        as_json=as_json,
    )


def _build_model(model: Path | None, options: dict[str, Any], *, as_json: bool) -> int:
    from edgekit.cli.render import build as render_build

    with show_progress() as tick:
        outcome = edgekit.build(model, progress=tick, **options)
    emit(outcome, render_build.format_build, as_json=as_json, facts=render_build.encode_build)
    if not as_json:
        say(f"report: {outcome.report.resolve()}")
    return ExitCode.DONE if outcome.choice else ExitCode.NOTHING_HOLDS


def _describe_measured(project: edgekit.Project) -> str:
    """Return what a device gets to measure candidates."""
    table = project.pipeline
    with_code = project.data.metric_on_device or (table is not None and table.on_device)
    code = " and your files of the metric or function that runs there" if with_code else ""
    return (
        f"sends candidates{code}; the evaluation samples are sent too, and removed from the device "
        "at the end"
    )


def _refuse_single_options(*, sizes: bool, allow_unmeasured: bool) -> None:
    """Refuse the options that concern a single model."""
    if sizes:
        raise edgekit.UserError(
            "--dims: edgekit.toml has a [pipeline] of several models",
            hint="set dims in [pipeline.models.NAME] of edgekit.toml",
        )
    if allow_unmeasured:
        raise edgekit.UserError(
            "--allow-unmeasured: a [pipeline] is always measured, and needs evaluation samples"
        )


def _build_pipeline(options: dict[str, Any], *, as_json: bool) -> int:
    from edgekit.cli.render import pipeline as render_pipeline

    with show_progress() as tick:
        outcome = edgekit.build_pipeline(progress=tick, **options)
    emit(
        outcome,
        render_pipeline.format_pipeline,
        as_json=as_json,
        facts=render_pipeline.encode_pipeline,
    )
    if not as_json:
        for name, each in outcome.models.items():
            say(f"report of {name}: {each.report.resolve()}")
    return ExitCode.DONE if outcome.passes else ExitCode.NOTHING_HOLDS
