"""edgekit devices: device profiles, and facts of connected devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgekit
from edgekit.cli.completion import complete_device
from edgekit.cli.options import DeviceName, HomeFolder, Hosts, Json
from edgekit.cli.render.output import emit, run_on_hosts

devices_app = typer.Typer(
    help="Device profiles, and facts of connected devices.", rich_markup_mode=None
)


@devices_app.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_devices(as_json=as_json)


@devices_app.command("list")
def list_devices(as_json: Json = False) -> None:
    """List the profiles that come with edgekit and with plugins."""
    from edgekit.cli.render import text as render_text

    emit(edgekit.list_devices(), render_text.format_profiles, as_json=as_json)


@devices_app.command("show")
def show_device(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Profile name or .toml file.",
            autocompletion=complete_device,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show a profile as TOML, with the sources of its figures."""
    from edgekit.api.profiles import load_profile, read_profile_text

    profile = load_profile(name)
    emit(profile, lambda _: read_profile_text(name).rstrip(), as_json=as_json)


@devices_app.command("check")
def check_device(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .toml file.")],
    as_json: Json = False,
) -> None:
    """Check a device profile and list all errors."""
    from edgekit.api.profiles import read_profile

    emit(read_profile(file), lambda p: f"{file}: {p.name} is a valid profile", as_json=as_json)


@devices_app.command("probe")
def probe_device(
    hosts: Hosts, home: HomeFolder = None, device: DeviceName = None, as_json: Json = False
) -> int:
    """Show the processor, memory and runtimes of a device."""
    from edgekit.api.arguments import choose_home
    from edgekit.cli.render import text as render_text

    where = choose_home(home, device)
    return run_on_hosts(
        hosts,
        lambda host, tick: (host, edgekit.probe(host, home=where, progress=tick)),
        render_text.format_probes,
        as_json=as_json,
        facts=render_text.encode_probes,
    )
