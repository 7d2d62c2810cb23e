"""edgekit init and edgekit report: files for the user to edit and to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Folder, TrustPickle
from edgekit.cli.render.output import say, show_progress


def start_project(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Needed if the folder has several.")
    ] = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
) -> None:
    """Write edgekit.toml for a model and its data."""
    from edgekit.pipeline.init_project import init_project

    with show_progress() as tick:
        started = init_project(folder, model, trusted=trust_pickle, tick=tick)
    say(f"{started.path.resolve()} written")
    for point in started.open_points:
        say(f"  to fill in: {point}")
    say("  then: edgekit build --device NAME ('edgekit devices' lists them)")


def write_page(
    build_dir: Annotated[
        Path, typer.Argument(metavar="BUILD_DIR", help="Build folder: build/NAME.")
    ],
) -> None:
    """Write report.html again from a build folder."""
    from edgekit.reporting.html import write_report

    say(str(write_report(build_dir)))
