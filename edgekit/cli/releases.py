"""edgekit rollback and edgekit status: the releases on devices."""

from __future__ import annotations

from typing import Annotated

import typer

import edgekit
from edgekit.cli.options import DeviceName, HomeFolder, Hosts, Json
from edgekit.cli.render.output import run_on_hosts

_LOG_LINES = 50


def roll_back(
    hosts: Hosts, home: HomeFolder = None, device: DeviceName = None, as_json: Json = False
) -> int:
    """Return to the previous release, if it passes the health check."""
    from edgekit.api.arguments import choose_home
    from edgekit.cli.render import text as render_text

    where = choose_home(home, device)
    return run_on_hosts(
        hosts,
        lambda host, tick: (host, edgekit.rollback(host, home=where, progress=tick)),
        render_text.format_rollbacks,
        as_json=as_json,
        facts=render_text.encode_states,
    )


def show_status(
    hosts: Hosts,
    home: HomeFolder = None,
    device: DeviceName = None,
    log: Annotated[
        bool, typer.Option("--log", help="Also show the audit log (last 50 lines).")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show the current and the previous release of a device."""
    from edgekit.api.arguments import choose_home
    from edgekit.cli.render import text as render_text

    lines, where = _LOG_LINES if log else 0, choose_home(home, device)
    return run_on_hosts(
        hosts,
        lambda host, tick: (host, edgekit.status(host, log=lines, home=where, progress=tick)),
        render_text.format_states,
        as_json=as_json,
        facts=render_text.encode_states,
    )
