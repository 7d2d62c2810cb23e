"""edgekit app: folders of apps."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

import edgekit
from edgekit.cli.completion import complete_template
from edgekit.cli.options import Json
from edgekit.cli.render.output import emit, say, show_progress

_HTTP_PORT, _HTTPS_PORT = 8080, 8443

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


@apps_app.command("serve")
def serve_app(
    app: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of an app that was packaged for web.")
    ],
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="PORT", min=0, max=65535, help="Default: 8080; 8443 with --https."
        ),
    ] = None,
    https: Annotated[
        bool,
        typer.Option(
            "--https", help="For tablets: encrypt with a certificate of your own authority."
        ),
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Listen on this address (default: this computer alone; with --https: all).",
        ),
    ] = None,
    snippets: Annotated[
        bool, typer.Option("--snippets", help="Print settings for nginx and Apache, and end.")
    ] = False,
) -> None:
    """Serve a web app with the headers that browsers need."""
    from edgekit.api.app_server import format_server_settings, open_app_server
    from edgekit.cli.render import app_server as render_server

    if snippets:
        say(format_server_settings(app).rstrip())
        return
    chosen = port if port is not None else _HTTPS_PORT if https else _HTTP_PORT
    with (
        contextlib.suppress(KeyboardInterrupt),
        open_app_server(app, port=chosen, https=https, host=host) as server,
    ):
        say(render_server.format_server(app, server))
        sys.stdout.flush()
        server.serve()
