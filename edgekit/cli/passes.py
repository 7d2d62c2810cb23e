"""edgekit apply, distil and passes: run a single pass, and list the passes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

import edgekit
from edgekit.cli.completion import complete_pass
from edgekit.cli.options import Data, Dims, Folder, Json, Seed, TrustPickle, parse_dims
from edgekit.cli.render.output import emit, note_old_names, show_progress


def apply_pass(
    name: Annotated[
        str,
        typer.Argument(
            metavar="PASS",
            help="Name of a pass; 'edgekit passes' lists them.",
            autocompletion=complete_pass,
        ),
    ],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model to process.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT", help="Output file; must not be MODEL.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the pass; repeatable."),
    ] = None,
    data: Data = None,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Run one pass on a model, check the result, and write it."""
    from edgekit.api.passes import parse_settings
    from edgekit.cli.render import text as render_text

    sizes = parse_dims(dims)
    with note_old_names() as old_names:
        step = parse_settings(name, settings or [], where=f"{name}: ", old_names=old_names)
    with show_progress() as tick:
        applied = edgekit.apply(
            step,
            model,
            out,
            data=data,
            dims=sizes,
            trust_pickle=trust_pickle,
            folder=folder,
            progress=tick,
        )
    emit(
        applied,
        render_text.format_apply_result,
        as_json=as_json,
        facts=render_text.encode_apply_result,
    )


def distil(
    teacher: Annotated[
        Path, typer.Argument(metavar="TEACHER", help="The original model, which stays as it is.")
    ],
    student: Annotated[
        Path,
        typer.Option("--student", metavar="MODEL", help="The compressed model, which learns."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT", help="Output file; neither of the models.")
    ],
    data: Data = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="N", help="Expected time of the learning on two cores."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the pass distil; repeatable."
        ),
    ] = None,
    seed: Seed = None,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Recover accuracy: a compressed model learns the original's outputs, without labels.

    Needs TensorFlow: pip install 'edgekit[tensorflow]'. After an interruption, the same command
    resumes.
    """
    from edgekit.api.passes import parse_settings
    from edgekit.cli.render import text as render_text

    sizes = parse_dims(dims)
    given = [*(settings or []), *([f"minutes={minutes:g}"] if minutes is not None else [])]
    step = parse_settings("distil", given, where="distil: ")
    with show_progress() as tick:
        made = edgekit.distil(
            teacher,
            student,
            out,
            settings=dataclasses.asdict(step.settings),
            data=data,
            dims=sizes,
            seed=seed,
            trust_pickle=trust_pickle,
            folder=folder,
            progress=tick,
        )
    emit(
        made,
        render_text.format_apply_result,
        as_json=as_json,
        facts=render_text.encode_apply_result,
    )


def list_passes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Show the details of this pass.", autocompletion=complete_pass
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the passes with their settings."""
    from edgekit.api.passes import describe_pass
    from edgekit.cli.render import text as render_text

    if name is not None:
        with note_old_names() as old_names:
            facts = describe_pass(name, old_names=old_names)
        emit(facts, render_text.format_pass_details, as_json=as_json)
    else:
        emit(edgekit.list_passes(), render_text.format_passes, as_json=as_json)
