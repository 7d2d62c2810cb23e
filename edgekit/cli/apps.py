"""edgekit app: folders of apps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgekit
from edgekit.cli.completion import complete_template
from edgekit.cli.options import Json
from edgekit.cli.render.output import emit, show_progress

apps_app = typer.Typer(help="Apps that install without a network.", rich_markup_mode=None)


@apps_app.command("new")
def start_app(
    name: Annotated[
        Path,
        typer.Argument(metavar="NAME", help="New or empty folder; its name is that of the app."),
    ],
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Build folder or bundle file.")
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar="TEMPLATE",
            help="image-classifier, detector, audio, text, form or folder-watch.",
            autocompletion=complete_template,
        ),
    ] = "image-classifier",
    as_json: Json = False,
) -> None:
    """Write an app folder from a template: app.toml, and code to edit."""
    from edgekit.cli.render import apps as render_apps

    with show_progress() as tick:
        written = edgekit.new_app(name, bundle, template=template, progress=tick)
    emit(written, render_apps.format_new_app, as_json=as_json)
