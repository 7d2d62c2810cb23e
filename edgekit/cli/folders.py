"""edgekit init, example and report: files for the user to edit and to read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

import edgekit
from edgekit.cli.completion import complete_example
from edgekit.cli.options import Folder, Json, TrustPickle
from edgekit.cli.render.output import emit, say, show_progress
from edgekit.errors import UserError


def start_project(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="Model file; needed if the folder has several."),
    ] = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
) -> None:
    """Write edgekit.toml for a model and its data."""
    with show_progress() as tick:
        started = edgekit.init(model, trust_pickle=trust_pickle, folder=folder, progress=tick)
    say(f"{started.path.resolve()} written")
    for point in started.open_points:
        say(f"  to complete: {point}")
    say("  next: edgekit build --device NAME ('edgekit devices' lists them)")


def start_example(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Name of the example; default: list them.",
            autocompletion=complete_example,
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="New or empty folder to write.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an example project into a folder, or list the examples."""
    from edgekit.api.projects import list_examples

    if name is None:
        emit(
            list_examples(),
            lambda found: "\n".join(f"{each.name}  {each.summary}" for each in found),
            as_json=as_json,
        )
        return
    if folder is None:
        raise UserError("example: DIR is missing", hint=f"example: edgekit example {name} {name}")
    written = edgekit.example(name, folder)

    def describe(_: object) -> str:
        script, built = folder / "train.py", folder / "build" / written.device
        commands = [
            f"edgekit build -C {shlex.quote(str(folder))} --device {written.device}",
            f"edgekit bench {shlex.quote(str(built))} local",
        ]
        if not written.is_trained:
            commands.insert(0, f"python {shlex.quote(str(script))}")
        steps = "\n        ".join(commands)
        return f"{folder.resolve()} written ({len(written.files)} files)\n  next: {steps}"

    emit(written, describe, as_json=as_json)


def write_page(
    build_dir: Annotated[
        Path, typer.Argument(metavar="BUILD_DIR", help="Build folder, such as build/NAME.")
    ],
    with_samples: Annotated[
        bool,
        typer.Option(
            "--with-samples", help="Draw changed samples (your data), if the build did so."
        ),
    ] = False,
) -> None:
    """Write report.html again from a build folder."""
    say(str(edgekit.report(build_dir, with_samples=with_samples)))
