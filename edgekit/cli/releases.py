"""edgekit rollback, status and uninstall: the releases on devices."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

import edgekit
from edgekit.cli.options import AppName, DeviceName, HomeFolder, Hosts, Json
from edgekit.cli.render.output import run_on_hosts

_LOG_LINES = 50


def roll_back(
    hosts: Hosts,
    name: AppName = None,
    home: HomeFolder = None,
    device: DeviceName = None,
    as_json: Json = False,
) -> int:
    """Return to the previous release, if it passes the health check."""
    from edgekit.api.arguments import check_app_name, choose_home
    from edgekit.cli.render import text as render_text

    check_app_name(name)
    where = choose_home(home, device)
    return run_on_hosts(
        hosts,
        lambda host, tick: (host, edgekit.rollback(host, name=name, home=where, progress=tick)),
        partial(render_text.format_rollbacks, name=name),
        as_json=as_json,
        facts=partial(render_text.encode_states, name=name),
    )


def show_status(
    hosts: Hosts,
    name: AppName = None,
    home: HomeFolder = None,
    device: DeviceName = None,
    log: Annotated[
        bool, typer.Option("--log", help="Also show the audit log (last 50 lines).")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show the current and the previous release of a device, also of each name."""
    from edgekit.api.arguments import check_app_name, choose_home
    from edgekit.cli.render import text as render_text

    check_app_name(name)
    lines, where = _LOG_LINES if log else 0, choose_home(home, device)
    return run_on_hosts(
        hosts,
        lambda host, tick: (
            host,
            edgekit.status(host, log=lines, name=name, home=where, progress=tick),
        ),
        partial(render_text.format_states, name=name),
        as_json=as_json,
        facts=partial(render_text.encode_states, name=name),
    )


def uninstall(
    host: Annotated[
        str, typer.Argument(metavar="HOST", help="'local', an ssh alias, or user@host:port.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name that was given to push.")],
    home: HomeFolder = None,
    device: DeviceName = None,
    as_json: Json = False,
) -> int:
    """Remove the releases of a name from a device; all others stay."""
    from edgekit.api.arguments import check_app_name, choose_home
    from edgekit.cli.render import text as render_text

    check_app_name(name)
    where = choose_home(home, device)
    return run_on_hosts(
        [host],
        lambda host, tick: (host, edgekit.uninstall(host, name, home=where, progress=tick)),
        partial(render_text.format_removals, name=name),
        as_json=as_json,
        facts=partial(render_text.encode_states, name=name),
    )
