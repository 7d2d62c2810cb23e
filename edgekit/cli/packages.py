"""edgekit package and fetch: files that install apps, and the wheels for them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import edgekit
from edgekit.cli.completion import complete_device, complete_template
from edgekit.cli.options import DeviceName, Folder, Json
from edgekit.cli.render.output import emit, show_progress

Python = Annotated[
    str | None,
    typer.Option("--python", metavar="X.Y", help="Python of the device (default: 3.11)."),
]
Glibc = Annotated[
    str | None,
    typer.Option("--glibc", metavar="X.Y", help="Oldest glibc of the device (default: 2.36)."),
]


class Target(StrEnum):
    """Kind of device that a package is for."""

    LINUX = "linux"
    WEB = "web"


class Format(StrEnum):
    """Format of a package file."""

    RUN = "run"
    DEB = "deb"


def package(
    output: Annotated[
        Path,
        typer.Option("-o", metavar="FILE", help="The file to write; for web a folder, or a .zip."),
    ],
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
            help="Build folders or bundle files, or NAME=BUNDLE; default: those of app.toml.",
        ),
    ] = None,
    target: Annotated[
        Target, typer.Option("--target", metavar="TARGET", help="linux, or web for browsers.")
    ] = Target.LINUX,
    form: Annotated[
        Format,
        typer.Option("--format", metavar="FORMAT", help="run: for 'sh FILE'; deb: for apt."),
    ] = Format.RUN,
    app: Annotated[
        Path | None,
        typer.Option("--app", metavar="DIR", help="App folder; default: an app of the bundle."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="TEMPLATE",
            help="Template for the app, instead of --app.",
            autocompletion=complete_template,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the app.")
    ] = None,
    device: DeviceName = None,
    python: Python = None,
    glibc: Glibc = None,
    wheels: Annotated[
        Path | None,
        typer.Option("--wheels", metavar="DIR", help="Folder of all wheels; uses no network."),
    ] = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse wheels that edgekit.lock does not hold.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="NAME", help="Key to sign with (default: 'default')."),
    ] = None,
    runtime_archive: Annotated[
        Path | None,
        typer.Option(
            "--runtime-archive",
            metavar="FILE",
            help="For web: onnxruntime-web as 'npm pack' wrote it; uses no network.",
        ),
    ] = None,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Package models, their runtime and an app for use without a network."""
    from edgekit.cli.render import apps as render_apps

    with show_progress() as tick:
        made = edgekit.package(
            bundles or [],
            output=output,
            target=target.value,
            format=form.value,
            app=app,
            template=template,
            name=name,
            device=device,
            python=python,
            glibc=glibc,
            wheels=wheels,
            locked=locked,
            key=key,
            runtime_archive=runtime_archive,
            folder=folder,
            progress=tick,
        )
    emit(made, render_apps.format_package, as_json=as_json)


def fetch(
    device: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="Device profile or .toml file.",
            autocompletion=complete_device,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", metavar="DIR", help="The folder to fill.")],
    python: Python = None,
    glibc: Glibc = None,
    requires: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="PACKAGE", help="A further package; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Collect the wheels for a device in a folder, for 'package --wheels DIR' without a network."""
    from edgekit.cli.render import apps as render_apps

    with show_progress() as tick:
        found = edgekit.fetch(
            device,
            output=output,
            python=python,
            glibc=glibc,
            requires=requires or [],
            progress=tick,
        )
    emit(found, render_apps.format_fetch, as_json=as_json)
